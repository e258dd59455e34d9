"""The product in C: right, the same bits whatever stands beside a row, and done without where it cannot be built."""

import os
import shutil

import pytest
import torch

from dlbench.engine.kernels import linear as products
from dlbench.engine.kernels import native as module
from dlbench.engine.kernels.linear import NATIVE_ROWS, Product, way

needs_compiler = pytest.mark.skipif(module.native() is None, reason="no C compiler with OpenMP")


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """As in a process that has not built the function, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(module.VARIABLE, raising=False)
    module.library.cache_clear()
    module.native.cache_clear()
    yield tmp_path / "dlbench"
    module.library.cache_clear()
    module.native.cache_clear()


@needs_compiler
@pytest.mark.parametrize(("outputs", "inputs"), [(7, 33), (64, 64), (100, 576), (3, 1), (1, 17)])
def test_equals_the_product_in_double_precision(outputs, inputs):
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    for rows in range(1, NATIVE_ROWS + 1):
        x, onto = torch.randn(rows, inputs), torch.randn(rows, outputs)
        exact = x.double() @ weight.double().t()
        close = {"rtol": 1e-5, "atol": 1e-5 * inputs**0.5}
        for b in (None, bias):
            for o in (None, onto):
                whole = exact + (0 if b is None else b) + (0 if o is None else o)
                torch.testing.assert_close(module.native()(x, weight, b, o).double(), whole, **close)


@needs_compiler
def test_a_row_has_the_same_bits_in_any_company(monkeypatch):
    torch.manual_seed(0)
    x, weight = torch.randn(11, 200), torch.randn(50, 200)
    whole = module.native()(x, weight, None, None)
    for begin in range(11):
        for end in range(begin + 1, 12):
            assert torch.equal(module.native()(x[begin:end].contiguous(), weight, None, None), whole[begin:end])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(module.native()(x, weight, None, None), whole)


@needs_compiler
def test_what_is_added_is_not_changed_and_any_layout_is_taken(monkeypatch):
    monkeypatch.setattr(products, "way", lambda *_, **__: "native")
    torch.manual_seed(0)
    weight, x = torch.randn(40, 64), torch.randn(64, 5).t()
    for onto in (torch.randn(5, 40), torch.randn(40, 5).t()):
        before = onto.clone()
        torch.testing.assert_close(Product(weight)(x, onto), before + x @ weight.t(), rtol=1e-4, atol=1e-4)
        assert torch.equal(onto, before)


@needs_compiler
def test_it_is_built_once_and_kept(anew, monkeypatch):
    assert module.native() is not None
    (built,) = anew.iterdir()
    assert built.suffix == ".so" and os.environ[module.VARIABLE] == str(built)
    monkeypatch.delenv(module.VARIABLE)
    module.library.cache_clear()
    module.native.cache_clear()
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: pytest.fail("it was built again"))
    assert module.native() is not None


def test_a_counter_of_products_sees_all_of_them(monkeypatch):
    from torch.utils.flop_counter import FlopCounterMode

    monkeypatch.setattr(products, "way", lambda *_, **__: "native")
    weight, x, onto = torch.randn(40, 64), torch.randn(3, 64), torch.randn(3, 40)
    with FlopCounterMode(display=False) as counter:
        out = Product(weight)(x, onto)
    assert counter.get_total_flops() == 2 * 3 * 40 * 64
    torch.testing.assert_close(out, onto + x @ weight.t())


def test_without_a_compiler_there_is_none(anew, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert module.native() is None
    assert way(4, 3072, 576, threads=2, kind="avx2") == "swap"


@pytest.mark.parametrize("what", ["a compiler that fails", "a cache that is a file", "a broken library", "off"])
def test_what_goes_wrong_leaves_the_other_ways(anew, monkeypatch, tmp_path, what):
    if what == "a compiler that fails":
        monkeypatch.setenv("CC", "false")
    elif what == "a cache that is a file":
        anew.write_text("")
    elif what == "a broken library":
        (tmp_path / "broken.so").write_bytes(b"no library")
        monkeypatch.setenv(module.VARIABLE, str(tmp_path / "broken.so"))
    else:
        monkeypatch.setenv(module.VARIABLE, "off")
    assert module.native() is None


def test_wrong_products_are_refused(monkeypatch):
    assert module._right(lambda x, weight, bias, onto: onto + x @ weight.t() + bias)
    assert not module._right(lambda x, weight, bias, onto: x @ weight.t() + bias)


def test_few_rows_are_native_where_registers_are_narrow():
    for rows, expected in ((1, "native"), (NATIVE_ROWS, "native"), (NATIVE_ROWS + 1, "blocks")):
        assert way(rows, 3072, 576, threads=2, kind="avx2", compiled=True) == expected
    assert way(4, 3072, 576, threads=2, kind="other", compiled=True) != "native"
    assert way(4, 3072, 576, threads=2, kind="avx2", compiled=True, transposed=True) != "native"
