import copy
import itertools
from functools import partial

import pytest
import tiny_models
import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from dlbench.engine.kernels import linear as module
from dlbench.engine.kernels.linear import MOST_ROWS, Product, join, linear, quick, shared_memory, way

ROWS = (1, 2, 3, 8, 9, 15, 16, 40, MOST_ROWS, MOST_ROWS + 1)
SIZES = ((192, 192), (576, 192), (48, 512), (97, 64), (600, 512), (30, 3000))
"""Outputs and inputs: small, odd, and larger than a cache."""
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(params=[1, 4])
def threads(request, monkeypatch):
    """What the rule is told; the products themselves run on the one thread of the tests."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)


@pytest.fixture(params=["intel", "avx2", "other"])
def processors(request, monkeypatch):
    """The rules of all kinds of processors, on whichever this is."""
    monkeypatch.setattr(module, "KIND", request.param)


@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
@pytest.mark.parametrize("transposed", [False, True])
def test_equals_the_stock_product(outputs, inputs, transposed, threads, processors):
    weight = torch.randn(inputs, outputs).t() if transposed else torch.randn(outputs, inputs)
    for rows, bias in itertools.product(ROWS, (None, torch.randn(outputs))):
        x = torch.randn(rows, inputs)
        expected = F.linear(x, weight, bias)
        close = {"rtol": 1e-4, "atol": 1e-5 * inputs**0.5}  # sums of that many terms, rounded in another order
        torch.testing.assert_close(linear(x, weight, bias), expected, **close)
        torch.testing.assert_close(Product(weight, bias)(x), expected, **close)


@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
def test_a_sum_leaves_what_it_is_added_to_as_it_was(outputs, inputs, threads, processors):
    weight = torch.randn(outputs, inputs)
    for rows, bias, columns in itertools.product(ROWS, (None, torch.randn(outputs)), (False, True)):
        x = torch.randn(rows, inputs)
        onto = torch.randn(outputs, rows).t() if columns else torch.randn(rows, outputs)
        before = onto.clone()
        close = {"rtol": 1e-4, "atol": 1e-5 * inputs**0.5}
        torch.testing.assert_close(Product(weight, bias)(x, onto), before + F.linear(x, weight, bias), **close)
        assert torch.equal(onto, before)


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(192, 5).t(),
        torch.randn(5, 384)[:, ::2],
        torch.randn(1, 384)[:, ::2],
        torch.randn(5, 1, 192),
        torch.randn(3, 4, 192),
        torch.randn(3, 192, 4).transpose(1, 2),
        torch.randn(192),
        torch.randn(1, 1, 192),
        torch.randn(7, 192)[3:4],
        torch.randn(0, 192),
    ],
    ids=lambda x: f"{tuple(x.shape)}-{x.stride()}",
)
def test_any_layout_of_the_left_factor(x, threads, processors):
    for weight in (torch.randn(40, 192), torch.randn(192, 40).t(), torch.randn(2048, 192)):
        bias = torch.randn(len(weight))
        torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias), **CLOSE)


def test_a_swapped_product_takes_what_another_left_as_it_is(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(module, "KIND", "intel")
    up, down, x = torch.randn(96, 32), torch.randn(32, 96), torch.randn(6, 32)
    seen = []
    mm = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b: seen.append(b) or mm(a, b))
    middle = Product(up)(x)
    out = Product(down)(middle)
    assert seen[1].data_ptr() == middle.data_ptr() and out.t().is_contiguous()
    torch.testing.assert_close(out, x @ up.t() @ down.t(), **CLOSE)


def test_a_weight_in_parts_of_memory_is_left_to_torch():
    x, weight = torch.randn(2, 64), torch.randn(96, 128)[:, :64]
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert torch.equal(Product(weight)(x), F.linear(x, weight))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_left_to_torch(dtype):
    x, weight, bias = torch.randn(3, 64, dtype=dtype), torch.randn(32, 64, dtype=dtype), torch.randn(32, dtype=dtype)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
    assert torch.equal(Product(weight, bias)(x), F.linear(x, weight, bias))


def test_gradients_flow():
    x, weight = torch.randn(1, 64), torch.randn(32, 64, requires_grad=True)
    linear(x, weight).sum().backward()
    torch.testing.assert_close(weight.grad, x.expand(32, 64))


def test_autocasting_is_left_to_torch():
    x, weight = torch.randn(2, 64), torch.randn(32, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16


def test_the_rule():
    rule = partial(way, kind="other")
    assert {rule(1, 192, 192, threads=n) for n in (1, 2)} == {"split"}
    assert {rule(r, 192, 192, threads=n) for n in (1, 2) for r in (2, 8)} == {"swap"}
    assert rule(2, 4096, 2816, threads=2) != "swap"
    assert [rule(r, 192, 192, threads=2) for r in (9, 15, 16, 17)] == ["blocks", "blocks", "swap", "blocks"]
    assert {rule(r, 192, 192, threads=1) for r in (9, 15, 16, 17)} == {"torch"}
    assert [rule(r, 192, 192, threads=2, transposed=True) for r in (1, 16)] == ["split", "swap"]
    assert rule(MOST_ROWS + 1, 4096, 4096, threads=2) == "torch"


def test_the_rule_where_blas_is_at_home():
    rule = partial(way, kind="intel")
    sizes = (192, 192), (4096, 192), (1024, 2816)
    assert {rule(r, *size, threads=n) for r in (1, 2, 3) for n in (1, 2) for size in sizes} == {"torch"}
    assert [rule(r, 576, 192, threads=2) for r in (4, 48, 49)] == ["swap", "swap", "torch"]
    assert [rule(r, 192, 512, threads=2) for r in (12, 13)] == ["torch", "swap"]
    assert [rule(r, 576, 192, threads=1) for r in (12, 13)] == ["torch", "swap"]
    assert [rule(r, 192, 512, threads=2, columns=True) for r in (3, 4, 48, 49)] == ["torch", "swap", "swap", "torch"]
    assert [rule(16, outputs, 1024, threads=2) == "swap" for outputs in (1024, 4096, 8192)] == [True, True, False]
    assert rule(4, 1024, 1024, threads=2) == rule(64, 1024, 1024, threads=2) == rule(1, 97, 64, threads=2, kind="other")
    assert {rule(r, 2304, 768, threads=2, transposed=True) for r in (1, 4, 16, 64)} == {"torch"}
    assert rule(MOST_ROWS + 1, 4096, 4096, threads=2) == "torch"


def test_the_rule_without_wide_registers():
    rule = partial(way, kind="avx2", compiled=False)
    for threads in (1, 2):
        assert [rule(r, 3072, 576, threads=threads) for r in (1, 2, 4, 5, 16)] == [
            "split",
            "swap",
            "swap",
            "blocks",
            "blocks",
        ]
    small = [(r, way(r, 192, 192, threads=2, kind="other")) for r in (1, 2, 8, 9, 16)]
    assert [(r, rule(r, 192, 192, threads=2)) for r, _ in small] == small
    assert {rule(r, 2304, 768, threads=2, transposed=True) for r in (4, 16)} == {"onednn"}


@pytest.mark.parametrize(
    ("outputs", "parts"), [(49152, 128), (3072, 8), (960, 4), (192, 4), (600, 4), (97, 1), (5632, 16)]
)
def test_blocks_are_of_one_size(outputs, parts):
    assert module._parts(outputs) == parts


def test_this_machine_decides_unless_told(processors, monkeypatch):
    for rows, built in itertools.product((1, 6), (None, lambda *_: None)):
        monkeypatch.setattr(module, "native", lambda built=built: built)
        told = {"kind": module.KIND, "compiled": built is not None}
        assert way(rows, 3072, 576, threads=2) == way(rows, 3072, 576, threads=2, **told)
    native = module.KIND == "avx2"
    assert way(1, 192, 192, threads=2) == ("native" if native else "torch" if module.KIND == "intel" else "split")


def test_without_onednn_the_rest_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(module, "_ONEDNN", None)
    monkeypatch.setattr(module, "KIND", "other")
    assert way(15, 4096, 4096, threads=2, kind="other") == way(1, 97, 64, threads=2, kind="other") == "torch"
    x, weight = torch.randn(1, 64), torch.randn(97, 64)
    assert torch.equal(linear(x, weight), F.linear(x, weight))


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_quick_takes_plain_modules_only():
    assert quick(nn.Linear(64, 32)) is not None
    assert quick(Conv1D(32, 64)) is not None
    for other in (Doubled(64, 32), nn.Linear(64, 32).bfloat16(), nn.LayerNorm(64), nn.Linear(64, 32, device="meta")):
        assert quick(other) is None
    assert quick(nn.utils.parametrizations.weight_norm(nn.Linear(64, 32))) is None


def test_quick_reads_the_weight_when_called():
    plain = nn.Linear(64, 32).requires_grad_(False)
    forward = quick(plain)
    plain.weight.data = torch.randn(32, 64)
    x = torch.randn(2, 64)
    torch.testing.assert_close(forward(x), plain(x), **CLOSE)


@pytest.mark.parametrize("family", tiny_models.EVERY)
def test_models_of_every_family_take_quick_products(family, threads):
    model = tiny_models.build(family)
    for rows in (1, 3):
        ids = torch.randint(2, tiny_models.VOCABULARY, (rows, 4))
        with torch.inference_mode():
            expected = model(ids).logits
            faster = [(m, f) for m in model.modules() if (f := quick(m)) is not None]
            assert faster
            for m, f in faster:
                m.forward = f
            found = model(ids).logits
            for m, _ in faster:
                del m.forward
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_joined_parameters_stay_what_they_are():
    parameters = [nn.Parameter(torch.randn(n, 8)) for n in (3, 5, 2)]
    before = copy.deepcopy(parameters)
    whole = join(parameters)
    assert torch.equal(whole, torch.cat(before))
    assert all(torch.equal(a, b) and a.requires_grad for a, b in zip(parameters, before, strict=True))
    assert {p.untyped_storage().data_ptr() for p in parameters} == {whole.untyped_storage().data_ptr()}
    again = join(parameters)
    assert again.data_ptr() == whole.data_ptr() and again.shape == whole.shape
    assert join(parameters[1:]).data_ptr() == parameters[1].data_ptr()
    assert join(parameters[:1]).data_ptr() == parameters[0].data_ptr()
    assert torch.equal(join(parameters[::-1]), torch.cat(before[::-1]))


def test_shared_memory_is_found():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    assert not shared_memory(model)
    model[1].weight = model[0].weight
    assert shared_memory(model) == {model[0].weight.data_ptr()}
    model[1].weight = nn.Parameter(model[0].weight.data[1:])
    assert shared_memory(model) == {model[0].weight.data_ptr(), model[1].weight.data_ptr()}
