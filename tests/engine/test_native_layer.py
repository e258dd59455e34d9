"""A whole layer in C: what the fused layer computes, the same bits in any company, and left alone where it must be."""

import numpy as np
import pytest
import tiny_models
import torch
from torch.utils.flop_counter import FlopCounterMode

from dlbench.engine import Engine, Request
from dlbench.engine.kernels import linear, native
from dlbench.engine.kernels.native_layer import NativeLayer
from dlbench.engine.kv.masks import PADDING_ONLY
from dlbench.engine.kv.past_tokens import Owed
from dlbench.engine.kv.row_cache import RowCache
from dlbench.method import Action
from dlbench.methods.calm import Calm
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_skip import StaticSkip

pytestmark = pytest.mark.skipif(native.library() is None, reason="no C compiler with OpenMP")
DEPTH, COLUMNS = 3, 6
LENGTHS = np.array([6, 2, 5, 6])
FAMILIES = ["llama", "mistral", "qwen2"]


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    """As on a processor on which the function is the fastest."""
    monkeypatch.setattr(linear, "KIND", "avx2")


def engine_of(family="llama", depth=DEPTH):
    engine = Engine(tiny_models.wide(family, depth))
    assert all(isinstance(step, NativeLayer) for step in engine.runtime.fused_model.steps), family
    return engine


@pytest.fixture(params=FAMILIES)
def layer(request):
    return engine_of(request.param).runtime.fused_model.steps[1]


class Rows:
    """Four rows of unequal length, and the arguments of a layer for their next tokens."""

    def __init__(self, layer):
        random = torch.Generator().manual_seed(3)
        fused, count = layer.fused, len(LENGTHS)
        self.layer, self.hidden = layer, torch.randn(count, 1, fused.out.outputs, generator=random)
        self.before = torch.randn(count, 2 * fused.kv_heads, COLUMNS, fused.head_width, generator=random)
        angle = torch.randn(count, 1, fused.head_width // 2, generator=random)
        angle = torch.cat((angle, angle), -1)
        signs = torch.ones(fused.head_width)
        signs[: fused.head_width // 2] = -1
        self.angles = angle.cos(), angle.sin() * signs

    def call(self, step, rows=(0, 1, 2, 3)):
        """A step's arguments for some rows, as if they were all, and the memory of keys and values."""
        rows = list(rows)
        cache = RowCache([None] * DEPTH, len(rows), COLUMNS + 1)
        cache.seat(np.arange(len(rows)), LENGTHS[rows], COLUMNS)
        memory = cache.memory.of(self.layer.index, self.before.shape[1], self.before)
        memory[:, :, :COLUMNS], cache.seen = self.before[rows], COLUMNS
        mask = torch.zeros(len(rows), 1, 1, COLUMNS + 1)
        for place, row in enumerate(rows):
            mask[place, ..., : COLUMNS - LENGTHS[row]] = torch.finfo(mask.dtype).min
        kwargs = {step.cache: cache, "attention_mask": mask[..., cache.left :], PADDING_ONLY: True, "signed": True}
        kwargs["position_embeddings"] = tuple(x[rows] for x in self.angles)
        return kwargs, memory


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_all_rows(layer):
    rows, results = Rows(layer), []
    for step in (layer, layer.fused):
        kwargs, memory = rows.call(step)
        results += [step(rows.hidden, **kwargs), memory]
    close(results[0], results[2])
    close(results[1], results[3])


@pytest.mark.parametrize("kept", [True, False])
def test_some_rows(layer, kept):
    rows, slots, results = Rows(layer), np.array([1, 3]), []
    for step in (layer, layer.fused):
        kwargs, memory = rows.call(step)
        out, extra = step.run_some(rows.hidden, slots, None, kwargs, kept)
        results.append((out, memory, extra))
    (ours, mine, extra), (theirs, memory, _) = results
    close(ours, theirs)
    assert torch.equal(ours[[0, 2]], rows.hidden[[0, 2]])
    of = slice(None) if kept else slots
    close(mine[of], memory[of])
    if not kept:
        assert not mine[[0, 2], :, COLUMNS].any()
    weights = layer.fused.kv.weight.numel()
    assert (extra.linear, extra.attended) == (2 * weights if kept else 0, False)


def test_past_tokens_get_their_keys_and_values_first(layer):
    rows, results = Rows(layer), []
    states = torch.randn(2, layer.fused.out.outputs, generator=torch.Generator().manual_seed(5))
    angles = tuple(x[:2] for x in rows.angles)
    for places in ((torch.tensor([0, 3]), torch.tensor([4, 5])), (2, slice(3, 5))):
        for step in (layer, layer.fused):
            kwargs, memory = rows.call(step)
            results.append((step(rows.hidden, owed=Owed(states, angles, places), **kwargs), memory))
        (ours, mine), (theirs, memory) = results[-2:]
        close(ours, theirs)
        close(mine, memory)


def test_rows_that_the_cache_selects(layer):
    rows, chosen, results = Rows(layer), torch.tensor([0, 2]), []
    for step in (layer, layer.fused):
        kwargs, memory = rows.call(step)
        kwargs["attention_mask"] = kwargs["attention_mask"][chosen]
        kwargs["position_embeddings"] = tuple(x[chosen] for x in kwargs["position_embeddings"])
        with kwargs[step.cache].only(chosen):
            results += [step(rows.hidden[chosen], **kwargs), memory]
    close(results[0], results[2])
    close(results[1], results[3])


def test_a_row_has_the_same_bits_in_any_company_and_with_any_number_of_threads(layer, monkeypatch):
    rows = Rows(layer)
    kwargs, _ = rows.call(layer)
    whole = layer(rows.hidden, **kwargs)
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for some in ([0], [1], [2, 3], [3, 1, 0]):
            kwargs, _ = rows.call(layer, some)
            assert torch.equal(layer(rows.hidden[some], **kwargs), whole[some])


def test_what_it_cannot_do_is_left_to_the_fused_layer(layer, monkeypatch):
    """A mask that hides more, parts of a layer, many rows, and whoever counts FLOPs."""
    rows = Rows(layer)
    monkeypatch.setattr(layer, "_run", lambda *_: pytest.fail("the function in C ran"))
    kwargs, _ = rows.call(layer)
    layer(rows.hidden, **{**kwargs, PADDING_ONLY: False})
    layer(rows.hidden, part=int(Action.ATTN), **kwargs)
    with FlopCounterMode(display=False) as counter:
        layer(rows.hidden, **kwargs)
    assert counter.get_total_flops() > 0
    monkeypatch.setattr(linear, "NATIVE_ROWS", 3)
    layer(rows.hidden, **kwargs)


METHODS = {
    "full": (None, None),
    "token": (RandomSkip(share=0.5), None),
    "evict": (RandomSkip(share=0.5), "evict"),
    "recompute": (Calm(threshold=0.2, check=(1, 2, 3, 4)), "recompute"),
    "sequence": (RandomSkip(share=0.5, per="sequence"), None),
    "static": (StaticSkip(share=0.6), None),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_texts_are_those_of_fused_layers(family, name, monkeypatch):
    method, kv = METHODS[name]
    prompts = tiny_models.prompts(8, seed=7)
    wanted = [Request(f"document {i}", p, 7 - i % 3) for i, p in enumerate(prompts)]
    ran = []
    run = NativeLayer._run
    monkeypatch.setattr(NativeLayer, "_run", lambda *args: ran.append(args) or run(*args))
    ours = engine_of(family, 5).prefill(wanted, slots=5).decode(method, kv=kv)
    assert ran
    monkeypatch.setattr(native, "library", lambda: None)
    theirs = Engine(tiny_models.wide(family, 5)).prefill(wanted, slots=5).decode(method, kv=kv)
    for one, other in zip(ours, theirs, strict=True):
        if not (one.near_ties or other.near_ties):
            assert (one.tokens, one.routes, one.flops) == (other.tokens, other.routes, other.flops)


def test_layers_that_compute_something_else_stay_fused():
    """Norms of heads, another number format, another norm and feed-forward, widths that fill no register."""
    others = tiny_models.wide("qwen3"), tiny_models.wide(dtype="bfloat16"), tiny_models.backbone("gpt2")
    for backbone in (*others, tiny_models.backbone("llama")):
        steps = Engine(backbone).runtime.fused_model.steps
        assert not any(isinstance(step, NativeLayer) for step in steps), backbone.name
