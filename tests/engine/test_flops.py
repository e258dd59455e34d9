"""The meter against torch's own counter: executed FLOPs are equal under eager attention, exactly."""

import numpy as np
import pytest
import replay
import tiny_models
import torch
from ready import ready
from test_replay import Chaos
from torch.utils.flop_counter import FlopCounterMode

from dlbench.engine import Engine, Request
from dlbench.engine.flops.costs import CATEGORIES
from dlbench.engine.flops.op_counter import TensorWork
from dlbench.method import Action, Method, Router
from dlbench.methods.calm import Calm
from dlbench.methods.flexi_depth import FlexiDepth
from dlbench.methods.hidden_router import HiddenRouter
from dlbench.methods.llm_drop import LlmDrop
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.self_speculation import SelfSpeculation
from dlbench.methods.sequence_router import SequenceRouter
from dlbench.methods.static_skip import StaticSkip

DEPTH = 5
PROMPTS = tiny_models.prompts(6)
LIMITS = [6, 3, 5, 1, 6, 4]
METHODS = {
    "full": lambda: None,
    "static": lambda: StaticSkip(only=(1, 3)),
    "random-token": lambda: RandomSkip(share=0.5),
    "random-sequence": lambda: RandomSkip(share=0.5, per="sequence"),
    "chaos": Chaos,
    "exit": lambda: Calm(threshold=0.2, check=(1, 2, 3, 4)),
    "state": lambda: Calm(threshold=0.95, measure="state", check=(1, 2, 3, 4)),
    "all-exit": lambda: Calm(threshold=0.0, check=(2,)),
    "halves": lambda: ready(LlmDrop(share=0.7)),
    "speculation": lambda: SelfSpeculation(share=0.4, length=3),
    "speculation-skip": lambda: SelfSpeculation(share=0.5, drafts="skip", stop=0.3),
    "router": lambda: ready(HiddenRouter()),
    "router-mlp": lambda: ready(HiddenRouter(kind="mlp")),
    "router-bypass": lambda: ready(FlexiDepth()),
    "router-begin": lambda: ready(SequenceRouter()),
}


def requests(prompts=PROMPTS, limits=LIMITS):
    return [Request(str(i), p, n) for i, (p, n) in enumerate(zip(prompts, limits, strict=True))]


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_executed_equals_torch(family, name):
    engine = Engine(tiny_models.backbone(family, DEPTH, "eager"))
    method = METHODS[name]()
    with FlopCounterMode(display=False) as prefill:
        wave = engine.prefill(requests(), reads=range(DEPTH + 1))
    with FlopCounterMode(display=False) as decode:
        written = wave.decode(method)
    assert sum(g.prompt_executed for g in written) == prefill.get_total_flops() > 0
    assert sum(g.executed for g in written) == decode.get_total_flops() > 0
    charged = {c for c in CATEGORIES if sum(g.flops[c] for g in written)}
    assert ("router" in charged) == name.startswith("router")
    if name in ("chaos", "random-token", "router"):  # an exit pays for what it left out only if a later token runs it
        assert "kv" in charged


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("name", ["static", "random-sequence"])
def test_executed_equals_torch_in_routed_prompts(family, name):
    engine = Engine(tiny_models.backbone(family, DEPTH, "eager"))
    method = METHODS[name]()
    with FlopCounterMode(display=False) as counter:
        written = engine.prefill(requests(), method).decode(method)
    assert sum(g.prompt_executed + g.executed for g in written) == counter.get_total_flops()


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_credited_equals_executed_at_batch_1(family, name):
    engine = Engine(tiny_models.backbone(family, DEPTH))
    for request in requests()[1:3]:
        (written,) = engine.prefill([request], reads=range(DEPTH + 1)).decode(METHODS[name]())
        assert sum(written.flops.values()) == written.executed
        assert written.prompt_flops == written.prompt_executed


@pytest.mark.parametrize("family", ["llama", "opt-projected"])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "chaos"])  # chaos looks at its neighbours
def test_credited_does_not_see_the_batch(family, name):
    engine = Engine(tiny_models.backbone(family, DEPTH, dtype="float64"))
    reads = range(DEPTH + 1)
    together = engine.prefill(requests(), reads=reads).decode(METHODS[name]())
    alone = [engine.prefill([r], reads=reads).decode(METHODS[name]())[0] for r in requests()]
    assert [g.flops for g in together] == [g.flops for g in alone]
    assert [g.prompt_flops for g in together] == [g.prompt_flops for g in alone]
    assert sum(g.executed for g in together) > sum(g.executed for g in alone)  # padding


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_full_depth_costs_what_the_formula_says(family):
    engine = Engine(tiny_models.backbone(family, DEPTH))
    for request, g in zip(requests(), engine.prefill(requests()).decode(), strict=True):
        assert sum(g.flops.values()) == engine.costs.dense(len(request.ids), len(g.tokens))


def test_a_layer_costs_what_can_be_counted_by_hand():
    costs = Engine(tiny_models.backbone("llama", DEPTH)).costs
    projections = 32 * 32 + 2 * 32 * 16 + 32 * 32  # q, k and v of two heads, o
    assert costs.layer.tolist() == [2 * (projections + 3 * 32 * 48)] * DEPTH
    assert costs.fill.tolist() == [2 * 2 * 32 * 16] * DEPTH
    assert costs.head == 2 * 32 * tiny_models.VOCABULARY
    assert set(costs.attention_per_key) == {2 * 4 * 8 + 2 * 4 * 8}  # scores and weighted sum of four heads of width 8
    projected = Engine(tiny_models.backbone("opt-projected", DEPTH)).costs
    assert projected.input == 2 * 20 * 32
    assert projected.head == 2 * 32 * 20 + 2 * 20 * tiny_models.VOCABULARY
    whole = Engine(tiny_models.backbone("gpt2", DEPTH)).costs
    assert whole.fill.tolist() == [2 * 3 * 32 * 32] * DEPTH  # one matrix for q, k and v


def test_every_part_by_hand():
    """Two decode forwards after a prompt of three tokens; layer 1 is skipped first and filled when it runs."""

    class Once(Method):
        def route(self, view):
            return view.step > 0 if view.layer == 1 else Action.RUN

    engine = Engine(tiny_models.backbone("llama", DEPTH))
    (g,) = engine.prefill([Request("a", (5, 6, 7), 3)]).decode(Once())
    costs = engine.costs
    layer, head = int(costs.layer[0]), costs.head
    assert g.layers == [4, 5]
    assert g.flops == {
        "layers": 9 * layer,
        "attention": (4 * 4 + 5 * 5) * int(costs.attention_per_key[0]),
        "heads": 2 * head,
        "kv": int(costs.fill[1]),
        "router": 0,
    }


def test_router_work_is_counted_per_token():
    linear = ready(HiddenRouter(noisy=False, threshold=-1e9))
    mlp = ready(HiddenRouter(kind="mlp", noisy=False, threshold=-1e9))
    engine = Engine(tiny_models.backbone("llama", DEPTH))
    wave = engine.prefill(requests())
    for router, work in ((linear, 2 * 32 * 2), (mlp, 2 * 32 * 4 + 2 * 4 * 2)):
        written = wave.decode(router)
        assert [g.flops["router"] for g in written] == [3 * work * (n - 1) for n in LIMITS]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_all_products_of_a_callback_are_counted(mode):
    x, matrix, vector = torch.ones(3, 8), torch.ones(8, 2), torch.ones(8)
    linear, recurrent = torch.nn.Linear(8, 2), torch.nn.GRU(8, 4)
    products = {
        lambda: x @ matrix: 2 * 3 * 8 * 2,
        lambda: linear(x): 2 * 3 * 8 * 2,
        lambda: linear(x[0]): 2 * 8 * 2,
        lambda: torch.nn.functional.linear(input=x[None], weight=matrix.t()): 2 * 3 * 8 * 2,
        lambda: x @ vector: 2 * 3 * 8,
        lambda: x[0] @ vector: 2 * 8,
        lambda: torch.matmul(x[None], matrix): 2 * 3 * 8 * 2,
        lambda: torch.einsum("nd,de->ne", x, matrix): 2 * 3 * 8 * 2,
        lambda: torch.addmm(torch.ones(3, 2), x, matrix): 2 * 3 * 8 * 2,
        lambda: torch.bmm(x[None], matrix[None]): 2 * 3 * 8 * 2,
        lambda: recurrent(x): 2 * 3 * 3 * 4 * (8 + 4),
        lambda: (x * vector).sum(): 0,
        lambda: torch.cosine_similarity(x, x): 0,
    }
    for _ in range(2):  # what was once found to hold no product is not looked at again
        for product, flops in products.items():
            with mode(), TensorWork() as work:
                product()
            assert work.flops == flops


def test_work_that_rows_share_is_not_lost():
    """A product of 2·7·5·3 FLOPs for all rows together, whatever their number."""

    class Sharing(Method):
        def route(self, view):
            if view.layer == 0:
                torch.ones(7, 5) @ torch.ones(5, 3)
            return Action.RUN

    for rows in (1, 4, 6):
        engine = Engine(tiny_models.backbone("llama", DEPTH))
        written = engine.prefill(requests()[:rows]).decode(Sharing())
        assert sum(g.flops["router"] for g in written) == 210 * (max(LIMITS[:rows]) - 1)


def test_unmetered_counts_layers_only():
    backbone = tiny_models.backbone("llama", DEPTH)
    counted = Engine(backbone).prefill(requests()).decode(Chaos())
    timed = Engine(backbone, metered=False).prefill(requests()).decode(Chaos())
    assert [(g.tokens, g.layers) for g in timed] == [(g.tokens, g.layers) for g in counted]
    assert not any(sum(g.flops.values()) + g.executed + g.prompt_flops for g in timed)


def test_keys_and_values_are_made_once_and_only_when_needed(monkeypatch):
    """The K/V bill is one fill per skipped (token, layer) whose row runs that layer again."""
    engine = Engine(tiny_models.backbone("llama", DEPTH))
    recorded = replay.Recorded(Chaos())
    written = engine.prefill(requests()).decode(recorded, seed=2)
    for row, g in enumerate(written):
        runs = [set(recorded.ran()[row, s]) for s in range(len(g.tokens) - 1)]
        fills = 0
        for layer in range(DEPTH):
            ran = [s for s in range(len(runs)) if layer in runs[s]]
            fills += sum(layer not in run for run in runs[: max(ran, default=0)])
        assert g.flops["kv"] == fills * engine.costs.fill[0]
    assert np.sum([g.flops["kv"] for g in written]) > 0


def test_a_router_is_a_method_of_one_product():
    assert issubclass(HiddenRouter, Router) and HiddenRouter().scope == "token"
