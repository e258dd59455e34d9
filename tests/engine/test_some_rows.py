"""Layers that some rows of a batch run: keys and values of all rows are made together, and nothing else changes."""

import pytest
import tiny_models
from test_fused_layer import FUSED

from dlbench.engine import Engine, Request
from dlbench.engine.flops.ledger import Ledger
from dlbench.method import Method
from dlbench.methods.calm import Calm
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_skip import StaticSkip

DEPTH = 5
METHODS = {
    "token": RandomSkip(share=0.5),
    "sequence": RandomSkip(share=0.5, per="sequence"),
    "exits": Calm(threshold=0.2, check=(1, 2, 3, 4)),
}


def requests(count=8, limit=7):
    return [Request(f"document {i}", p, limit - i % 3) for i, p in enumerate(tiny_models.prompts(count, seed=5))]


@pytest.fixture(params=[0, 10**9], ids=["gathered", "masked"])
def way(request, monkeypatch):
    """How the rows that run a layer are told from the others, on layers of any width."""
    monkeypatch.setattr("dlbench.engine.kernels.fused_layer._GATHERED", request.param)


def spy(monkeypatch):
    """The number of layers that some rows ran."""
    seen = []
    note = Ledger.beside
    monkeypatch.setattr(Ledger, "beside", lambda *args, **kwargs: seen.append(args) or note(*args, **kwargs))
    return seen


CASES = [("llama", name) for name in METHODS] + [(family, "token") for family in FUSED if family != "llama"]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_texts_routes_and_credit_are_those_of_single_rows(family, name, way, monkeypatch):
    engine = Engine(tiny_models.backbone(family, DEPTH, dtype="float32"))
    wanted, seen = requests(), spy(monkeypatch)
    together = engine.prefill(wanted).decode(METHODS[name])
    assert seen
    seen.clear()
    for one, request in zip(together, wanted, strict=True):
        (alone,) = engine.prefill([request]).decode(METHODS[name])
        if not (one.near_ties or alone.near_ties):
            assert (one.tokens, one.routes, one.flops) == (alone.tokens, alone.routes, alone.flops)
        assert sum(one.flops.values()) <= one.executed
    assert not seen  # a row alone leaves nothing to compute beside it


def test_what_is_computed_beside_is_executed_and_not_credited(monkeypatch):
    """Two rows, of which one runs all layers and one runs every second: its products for keys and values count."""

    class Second(Method):
        """Rows of the batch differ: the first runs every layer."""

        def route(self, view):
            return (view.row == 0) | (view.layer % 2 == 0)

    monkeypatch.setattr("dlbench.engine.kernels.fused_layer._GATHERED", 0)
    monkeypatch.setattr("dlbench.engine.kv.storage._COPIED", 0)  # copies cost nothing: only the rows that run attend
    engine = Engine(tiny_models.backbone("llama", DEPTH))
    costs, steps = engine.costs, 4
    prompt = tiny_models.prompts(1)[0]
    _, second = engine.prefill([Request(n, prompt, steps + 1) for n in "ab"]).decode(Second())
    skipped = [layer for layer in range(DEPTH) if layer % 2]
    config = engine.backbone.config
    width = config.num_attention_heads * config.head_dim
    queries = 2 * config.hidden_size * width
    beside = steps * sum(queries + int(costs.fill[layer]) for layer in skipped)
    assert second.flops["kv"] == 0  # no later token of the row attends in these layers
    assert second.executed - sum(second.flops.values()) == beside


def test_keys_and_values_are_credited_once_they_are_needed():
    """A row that runs a layer at its last step owes what it skipped there before, in a batch as alone."""

    class Late(Method):
        def route(self, view):
            return (view.row == 0) | (view.step == 3)

    engine = Engine(tiny_models.backbone("llama", DEPTH))
    prompts = tiny_models.prompts(2, seed=1)
    pair = [Request(n, p, 5) for n, p in zip("ab", prompts, strict=True)]
    _, second = engine.prefill(pair).decode(Late())
    assert second.flops["kv"] == 3 * int(engine.costs.fill.sum())


def test_only_fused_layers_on_a_cpu_and_policies_of_states_do_so(monkeypatch):
    seen = spy(monkeypatch)
    backbone = tiny_models.backbone("llama", DEPTH)
    Engine(backbone, kernels="stock").prefill(requests()).decode(METHODS["token"])
    Engine(backbone).prefill(requests()).decode(METHODS["token"], kv="evict")
    Engine(backbone).prefill(requests()).decode(METHODS["exits"], kv="recompute")
    Engine(backbone).prefill(requests()).decode(StaticSkip(share=0.6))
    assert not seen
