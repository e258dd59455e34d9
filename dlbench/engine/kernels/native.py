"""Functions in C, which are compiled when they are first needed and kept in the user's cache.

BLAS and oneDNN take for a few rows almost as long as for sixteen; `few_rows.c` reads the weight once and does no more
than these rows need. `decode_layer.c` runs a whole layer so. Where there is no C compiler with OpenMP, or the cache
cannot be written, products are computed as `dlbench.engine.kernels.linear` says.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from dlbench.errors import DlbenchError
from dlbench.system import cpu
from dlbench.system.paths import cache_folder

VARIABLE = "DLBENCH_NATIVE"
"""Environment variable: "off", or the file of a library that has been built, which processes started later take."""
_SOURCE = Path(__file__).with_name("decode_layer.c")
_INCLUDED = Path(__file__).with_name("few_rows.c")
_FLAGS = ("-O3", "-march=native", "-mtune=generic", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC")
"""Tuned for some processors, GCC would multiply and add apart in some of the loops, and these would round otherwise."""
_SECONDS = 60

Native = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]
"""x [rows, K], weight [N, K], bias [N] or None, onto [rows, N] or None -> x @ weight.T + bias + onto [rows, N]; all are
contiguous float32 in CPU memory."""


@cache
def library() -> ctypes.CDLL | None:
    """Build the functions, or load what was built before; None where that cannot be done, or a product is wrong."""
    given = os.environ.get(VARIABLE, "")
    if given == "off":
        return None
    file = Path(given) if given else _built()
    if file is None:
        return None
    try:
        loaded = ctypes.CDLL(str(file))
        if not (hasattr(loaded, "layer_step") and _right(_product(loaded))):
            return None
    except (OSError, AttributeError):
        return None
    os.environ[VARIABLE] = str(file)
    return loaded


@cache
def native() -> Native | None:
    """The product of few rows; None where there is no library."""
    return None if (loaded := library()) is None else _product(loaded)


def _product(loaded: ctypes.CDLL) -> Native:
    """The product, as a function of tensors."""
    function = loaded.product
    function.argtypes = [*[ctypes.c_void_p] * 5, *[ctypes.c_long] * 3, ctypes.c_int]
    function.restype = None

    def product(x: Tensor, weight: Tensor, bias: Tensor | None, onto: Tensor | None) -> Tensor:
        (rows, inputs), outputs = x.shape, weight.shape[0]
        out = x.new_empty(rows, outputs)
        function(
            x.data_ptr(),
            weight.data_ptr(),
            None if bias is None else bias.data_ptr(),
            None if onto is None else onto.data_ptr(),
            out.data_ptr(),
            rows,
            outputs,
            inputs,
            torch.get_num_threads(),
        )
        return out

    return product


def _built() -> Path | None:
    """The library for this processor and source, built if need be."""
    names = (os.environ.get("CC"), "cc", "gcc")
    compiler = next((found for name in names if name and (found := shutil.which(name))), None)
    if compiler is None:
        return None
    sources = _SOURCE.read_bytes(), _INCLUDED.read_bytes()
    parts = (*sources, cpu.name().encode(), os.path.realpath(compiler).encode(), " ".join(_FLAGS).encode())
    name = f"decode-{hashlib.sha256(bytes(1).join(parts)).hexdigest()[:16]}.so"
    with suppress(DlbenchError, OSError, subprocess.SubprocessError):
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / name).is_file():
            return folder / name
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / name
            command = [compiler, *_FLAGS, str(_SOURCE), "-o", str(made)]
            subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
            made.replace(folder / name)
        return folder / name
    return None


def _right(product: Native) -> bool:
    """Whether the products of a few random matrices are those of torch."""
    random = torch.Generator().manual_seed(0)
    for rows, outputs, inputs in ((1, 7, 33), (6, 64, 128)):
        x, weight = (torch.randn(n, inputs, generator=random) for n in (rows, outputs))
        bias, onto = torch.randn(outputs, generator=random), torch.randn(rows, outputs, generator=random)
        expected = onto.double() + x.double() @ weight.double().t() + bias.double()
        if not torch.allclose(product(x, weight, bias, onto).double(), expected, rtol=1e-4, atol=1e-4):
            return False
    return True
