"""The end-of-run summary says which layers ran on slower kernels than were tried."""

import numpy as np
from record_factory import _timing, record

from dlbench.running.summary import slow_kernels


def with_kernels(kernels, name="static_skip"):
    return record(name, env={"kernels": kernels})


def timed(of, kernels):
    return _timing(of, 1, 0.5, np.random.default_rng(0)).model_copy(update={"kernels": kernels})


def test_the_end_of_a_run_says_why_layers_were_not_fused():
    reason = "layer 0: the output is 2.1 times as far from the exact result as is allowed"
    fell, same = (with_kernels(f"stock: {reason}", name) for name in ("static_skip", "calm"))
    (line,) = slow_kernels([fell, same, with_kernels("fused", "mue")], [])
    assert "own layers ran" in line and reason in line and fell.backbone.name in line
    (line,) = slow_kernels([with_kernels("fused: no memory for graphs")], [])
    assert "captured" in line and "no memory for graphs" in line
    assert slow_kernels([with_kernels("stock"), with_kernels("captured"), record()], []) == []


def test_times_of_other_layers_than_those_of_the_texts_are_told():
    ran = with_kernels("fused")
    assert slow_kernels([ran], [timed(ran, "fused")]) == []
    (line,) = slow_kernels([ran], [timed(ran, "stock"), timed(ran, "stock")])
    assert line.startswith("times of 1 rows")
    assert slow_kernels([with_kernels("stock")], [timed(with_kernels("stock"), "stock")]) == []
