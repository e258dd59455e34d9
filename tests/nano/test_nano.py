"""The embedded backbone on its own tasks: what the default run promises."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from dlbench import fit
from dlbench.data.document import documents_sha256
from dlbench.data.loader import load_task
from dlbench.data.resolve import expand_tasks
from dlbench.engine import Engine, Generation, Request
from dlbench.evaluation.settings import Conditions, variants
from dlbench.method import Method
from dlbench.models.backbone import Backbone
from dlbench.models.loading import load
from dlbench.prompting.tokenize import tokenise
from dlbench.registry import methods as registry
from dlbench.running.budgets import FIXED
from dlbench.running.config import RunSpec

TASKS = expand_tasks(["nano"])
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def nano() -> Backbone:
    return load("nano")


@pytest.fixture(scope="module")
def prompts(nano: Backbone) -> list[Request]:
    engine = Engine(nano)
    return [p.request for t in TASKS for p in tokenise(engine, load_task(t).documents("test", 18))][:70]


def generate(nano: Backbone, group: Sequence[Request]) -> list[list[int]]:
    """What the unmodified model writes, cut at the end token and the limit."""
    longest = max(len(r.ids) for r in group)
    ids = torch.tensor([[0] * (longest - len(r.ids)) + list(r.ids) for r in group])
    mask = torch.tensor([[0] * (longest - len(r.ids)) + [1] * len(r.ids) for r in group])
    limit = max(r.limit for r in group)
    out = nano.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=limit, do_sample=False)
    written = []
    for row, request in zip(out[:, longest:].tolist(), group, strict=True):
        end = next((i + 1 for i, token in enumerate(row) if token in nano.eos), len(row))
        written.append(row[: min(end, request.limit)])
    return written


@pytest.mark.parametrize("batch", [1, 16])
def test_full_equals_generate(nano: Backbone, prompts: list[Request], batch: int) -> None:
    engine = Engine(nano)
    some = prompts[::2] if batch == 16 else prompts[::9]
    for start in range(0, len(some), batch):
        group = [Request(r.id, r.ids, r.limit) for r in some[start : start + batch]]
        assert [g.tokens for g in engine.prefill(group).decode()] == generate(nano, group)


def disagreements(a: Sequence[Generation], b: Sequence[Generation], ids: Sequence[str]) -> list[str]:
    """Documents whose outputs differ; each must differ first at a decision that rounding can tip.

    Raises:
        AssertionError: a difference without such a decision.
    """
    named = []
    for x, y, id_ in zip(a, b, ids, strict=True):
        if x.tokens == y.tokens and x.layers == y.layers and x.flops == y.flops:
            continue
        token = next(
            (i for i, (s, t) in enumerate(zip(x.tokens, y.tokens, strict=False)) if s != t),
            min(len(x.tokens), len(y.tokens)),
        )
        layer = next((i + 1 for i, (s, t) in enumerate(zip(x.layers, y.layers, strict=False)) if s != t), token)
        first = min(token, layer)
        near = [margin for step, margin in (*x.near_ties, *y.near_ties) if step <= first and margin < TOLERANCE]
        assert near, f"{id_}: differs first at token {first} without a close decision"
        named.append(id_)
    return named


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("full", {}),
        ("static_skip", {"share": 0.5}),
        ("random_skip", {"per": "token"}),
        ("random_skip", {"per": "sequence"}),
        ("calm", {"threshold": 0.7}),
        ("mue", {"threshold": 0.9}),
    ],
)
def test_results_do_not_depend_on_the_batch(
    nano: Backbone, prompts: list[Request], name: str, params: dict[str, object]
) -> None:
    engine = Engine(nano)
    cls = registry.load(name)
    assert issubclass(cls, Method)
    method = cls.from_params(params)
    some = prompts[::3]
    by_size = {}
    for size in (1, 7, len(some)):
        by_size[size] = [
            g for i in range(0, len(some), size) for g in engine.prefill(some[i : i + size]).decode(method, seed=3)
        ]
    ids = [r.id for r in some]
    for size in (7, len(some)):
        assert len(disagreements(by_size[1], by_size[size], ids)) <= 1


def test_the_fits_that_ship_are_those_of_this_source(nano: Backbone) -> None:
    spec = RunSpec()
    for task in map(load_task, TASKS):
        documents = task.documents("fit")
        conditions = Conditions(nano, task, documents_sha256(task.documents("test")), spec.prompt, spec.kv)
        for name in ("calm", "hidden_router"):
            cls = registry.load(name)
            assert issubclass(cls, Method)
            for part in fit.halves(documents):  # a bound that left documents out would be part of the key
                assert fit.bounded(nano, part, cls.fit_tokens) == part
            for params in variants(cls, {}):
                for budget in FIXED:
                    method = cls.from_params(params)
                    assert isinstance(method, Method)
                    key = conditions.fit_key(name, method, budget, spec.seed, documents_sha256(documents))
                    found = fit.find_artifact(key, [])
                    assert found is not None, f"{name} {params} at {budget} on {task.name}: run ci/shipped-fits nano"
                    loaded, facts = fit.load_artifact(found, cls)
                    assert facts.budget == budget
                    assert loaded.params().keys() == method.params().keys()
