"""Fused layers are held against the stock layer in float64: rounding passes on every processor, faults on none."""

import copy

import pytest
import tiny_models
import torch
import torch.nn.functional as F

from dlbench.bench.models import Shape, random_llama, sizes
from dlbench.bench.workbench import Workbench
from dlbench.engine import Engine
from dlbench.engine.kernels import linear as products
from dlbench.engine.kernels.equivalence import Exact, gap
from dlbench.engine.kernels.fuse import NotFused, fuse
from dlbench.engine.kernels.fused_layer import FusedLayer
from dlbench.engine.kernels.linear import Product
from dlbench.models.backbone import wrap

SHAPE = Shape(2, 192, 6, 512, vocabulary=64)
"""The narrow model of `dlbench bench`, two of its layers."""
WAYS = ("torch", "swap", "blocks", "onednn")


@pytest.fixture(params=[*WAYS, "split"])
def forced(request, monkeypatch):
    """Every product is computed in one way, which some processor would choose; the last one is for single rows."""
    if request.param == "onednn" and products._ONEDNN is None:
        pytest.skip("this torch has no oneDNN")
    one_row = request.param == "split"

    def way(rows, outputs, inputs, **_):
        whole = outputs % 8 == inputs % 8 == 0
        return request.param if whole and (rows == 1 or not one_row) else "torch"

    monkeypatch.setattr(products, "way", way)


def model(std=0.02, dtype="float32"):
    """A model whose layers add little to states as large as those of the proof, or much."""
    torch.manual_seed(1)
    backbone = random_llama(SHAPE, device="cpu", dtype=dtype)
    with torch.no_grad():
        for layer in backbone.layers:
            for p in layer.parameters():
                if p.ndim > 1:
                    p.normal_(std=std)
    return backbone


@pytest.mark.parametrize("std", [0.002, 0.02, 0.3])
def test_rounding_passes_in_every_way_to_compute_a_product(std, forced):
    assert len(fuse(model(std))) == SHAPE.layers


@pytest.mark.parametrize("family", ["gpt2", "opt", "qwen3", "gemma3", "gpt_neox"])
def test_it_passes_in_other_families_too(family, forced):
    fuse(wrap(tiny_models.build(family), name=family))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_passes_in_short_dtypes(dtype):
    fuse(model(dtype=dtype))


@pytest.mark.parametrize("rows", [1, 3, 8, 16, 48])
@pytest.mark.parametrize(("outputs", "inputs"), [(192, 512), (192, 192), (64, 1024)])
def test_a_sum_with_large_numbers_is_as_exact_as_a_product_and_a_sum(rows, outputs, inputs, forced):
    torch.manual_seed(rows)
    weight, x, onto = torch.randn(outputs, inputs) * 0.02, torch.randn(rows, inputs), torch.randn(rows, outputs) * 30
    exact = onto.double() + F.linear(x.double(), weight.double())
    ours, stock = Product(weight)(x, onto), onto + F.linear(x, weight)
    off, allowed = ((y.double() - exact).square().mean().sqrt() for y in (ours, stock))
    assert off <= 1.5 * allowed


@pytest.mark.parametrize("bits", [10, 7], ids=["tf32", "bfloat16"])
def test_products_of_fewer_digits_are_caught(bits, monkeypatch):
    def short(x):
        """The number with so many binary digits after the first."""
        mantissa, exponent = torch.frexp(x)
        return torch.ldexp((mantissa * 2 ** (bits + 1)).round() / 2 ** (bits + 1), exponent)

    def product(self, x, onto=None):
        out = F.linear(short(x), short(self.weight), self.bias)
        return out if onto is None else onto + out

    monkeypatch.setattr(Product, "__call__", product)
    with pytest.raises(NotFused, match=r"^layer 0: .* times as far from the exact result as is allowed$"):
        fuse(model())


@pytest.mark.parametrize("share", [1e-4, 1e-2])
def test_a_small_fault_is_caught(share, monkeypatch):
    forward = FusedLayer._feed_forward

    def off(self, state, onto):
        out = forward(self, state, onto)
        out[..., 0] += share * out.abs().amax()
        return out

    monkeypatch.setattr(FusedLayer, "_feed_forward", off)
    with pytest.raises(NotFused):
        fuse(model())


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "gemma3"])
def test_exact_is_the_layer_in_float64(family):
    layer = tiny_models.backbone(family).layers[0]
    names = {"gpt2": ("mlp", "ln_2"), "opt": ("fc1", "final_layer_norm")}
    mlp, norm = (getattr(layer, name) for name in names.get(family, ("mlp", "post_attention_layernorm")))
    x = torch.randn(3, 32)
    with torch.inference_mode(), Exact():
        found, normed = mlp(x), norm(x)
    assert found.dtype == normed.dtype == torch.float64
    assert torch.allclose(found, copy.deepcopy(mlp).double()(x.double()), rtol=1e-12, atol=1e-12)
    assert all(p.dtype is torch.float32 for p in layer.parameters()) and x.dtype is torch.float32
    # root-mean-square norms of the library turn to float32 by themselves, whatever they are given
    y = x.double() - (x.double().mean(-1, keepdim=True) if family in ("gpt2", "opt") else 0)
    eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    weight = norm.weight.double() + (1 if family == "gemma3" else 0)
    bias = norm.bias.double() if getattr(norm, "bias", None) is not None else 0
    by_hand = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps) * weight + bias
    assert torch.allclose(normed, by_hand, rtol=1e-12, atol=1e-12)


def test_a_gap_is_in_units_of_twice_the_stock_distance():
    exact = torch.ones(2, 64, dtype=torch.float64)
    stock = (exact + 1e-3).float()
    assert gap((exact - 1e-3).float(), stock, exact, 64) == pytest.approx(0.5, rel=1e-3)
    assert gap((exact + 4e-3).float(), stock, exact, 64) == pytest.approx(2, rel=1e-3)
    one_row = exact.clone()
    one_row[1] += 4e-3
    assert gap(one_row.float(), stock, exact, 64) == pytest.approx(2, rel=1e-3)
    assert not gap(one_row.float() * float("nan"), stock, exact, 64) <= 1
    # a stock result that is exact by luck sets no bound below rounding
    assert gap(exact.float() * (1 + 2**-23), exact.float(), exact, 64) < 1
    assert gap(exact.float() * (1 + 1e-4), exact.float(), exact, 64) > 1


def test_the_benchmark_notes_a_fallback():
    bench = Workbench(sizes(quick=True, cuda=False), "cpu", "float32", 1)
    for _ in range(2):
        bench.engine(wrap(tiny_models.build("bloom"), name="a bloom"))
    bench.engine(wrap(tiny_models.build("llama"), name="a llama"))
    assert bench.notes == ["a bloom: stock layers ran, none that are faster: no fused layers for models of type bloom"]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_models_of_the_benchmark_are_fused_on_this_machine(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for shape in (Shape(16, 192, 6, 512), Shape(2, 1024, 16, 2816)):
        engine = Engine(random_llama(shape, device="cpu", dtype="float32"))
        assert (engine.kernels, engine.kernels_note) == ("fused", "")
