"""The model comes out of the engine as it went in, whatever a plugin does; a broken plugin is named."""

from dataclasses import dataclass

import pytest
import tiny_models
import torch

from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError
from dlbench.method import Action, Method
from dlbench.methods.calm import Calm
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.families import resolve

DEPTH = 5
REQUESTS = [Request(str(i), p, 4) for i, p in enumerate(tiny_models.prompts(3))]


class Answering(Method):
    """Answers whatever it is told to, at layer 2 of the second decode step."""

    def __init__(self, answer):
        self.answer = answer

    def route(self, view):
        if view.layer == 2 and (view.step == 1).all():
            return self.answer(view) if callable(self.answer) else self.answer
        return Action.RUN if view.layer % 2 else Action.SKIP


def trace(backbone):
    """Everything that could be left behind."""
    model = backbone.model
    return (
        {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()},
        [
            (name, id(module), "forward" in vars(module), len(module._forward_hooks))
            for name, module in model.named_modules()
        ],
        sum(float(p.double().abs().sum()) for p in model.parameters()),
    )


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_restored_after_use_and_after_a_failure(family):
    backbone = tiny_models.backbone(family, DEPTH)
    before = trace(backbone)
    assert not any(inside for _, _, inside, _ in before[1])
    engine = Engine(backbone)
    wave = engine.prefill(REQUESTS)
    expected = wave.decode(None), wave.decode(RandomSkip())

    def fail(view):
        # While a method is asked, the gates are there; else this test would show nothing.
        assert all("forward" in vars(layer) for layer in backbone.layers)
        for path in backbone.family.query:
            assert all("forward" in vars(resolve(layer, path)) for layer in backbone.layers)
        raise KeyError("oops")

    with pytest.raises(DlbenchError, match=r"Answering.*oops"):
        wave.decode(Answering(fail))
    assert trace(backbone) == before
    assert (wave.decode(None), wave.decode(RandomSkip())) == expected
    assert trace(backbone) == before
    assert Engine(backbone).prefill(REQUESTS).decode() == expected[0]


def test_restored_after_an_interrupt_in_the_model():
    """Ctrl-C comes anywhere, also while a fill is under way."""
    backbone = tiny_models.backbone("llama", DEPTH)
    before = trace(backbone)
    engine = Engine(backbone, kernels="stock")
    wave = engine.prefill(REQUESTS)
    expected = wave.decode(RandomSkip())
    calls = []

    def interrupt(*_):
        calls.append(any(step.filling for step in engine.runtime.gates.stock))
        if len(calls) > 12 and calls[-1]:
            raise KeyboardInterrupt

    handle = backbone.layers[1].self_attn.k_proj.register_forward_pre_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            for seed in range(20):
                wave.decode(RandomSkip(), seed=seed)
    finally:
        handle.remove()
    assert trace(backbone) == before
    assert not engine.runtime.gates.stock
    assert wave.decode(RandomSkip()) == expected


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (7, "answered.*7"),
        (-1, "answered -1"),
        (Action.RUN | Action.EXIT, "SKIP .0., ATTN .1., MLP .2., RUN .3. or EXIT .4."),
        (None, "answered None"),
        (0.5, "answered 0.5"),
        (lambda view: torch.tensor([3, 7, 0]), "answered 7"),
        (lambda view: torch.tensor([5, 5, 5]), "answered 5"),
        (lambda view: torch.tensor([0.0, 0.7, 1.0]), "answered torch.float32"),
        (lambda view: torch.ones(2, dtype=torch.bool), r"shape \(2,\) for 3 tokens"),
        (lambda view: torch.ones(3, 1, dtype=torch.bool), r"shape \(3, 1\) for 3 tokens"),
        (lambda view: torch.tensor(True), r"shape \(\) for 3 tokens"),
    ],
)
def test_a_broken_answer_is_refused_by_name(answer, said):
    backbone = tiny_models.backbone("llama", DEPTH)
    wave = Engine(backbone).prefill(REQUESTS)
    with pytest.raises(DlbenchError, match="method Answering.*" + said):
        wave.decode(Answering(answer))
    assert not any("forward" in vars(module) for module in backbone.model.modules())


@pytest.mark.parametrize(
    "answer",
    [
        Action.RUN,
        3,
        True,
        lambda view: view.layer < view.depth,
        lambda view: torch.ones(3, dtype=torch.bool),
        lambda view: torch.full((3,), 3),
        lambda view: torch.full((3,), 3, dtype=torch.uint8),
        lambda view: torch.full((3,), int(Action.RUN), dtype=torch.int32),
    ],
)
def test_one_answer_in_many_forms(answer):
    wave = Engine(tiny_models.backbone("llama", DEPTH)).prefill(REQUESTS)
    written = wave.decode(Answering(answer))
    assert [g.layers for g in written] == [[2, 3, 2]] * 3


@pytest.mark.parametrize("runs", [True, False])
def test_true_runs_a_whole_layer_and_false_none(runs):
    """As in a tensor of booleans; as an integer True would be the attention alone."""
    wave = Engine(tiny_models.backbone("llama", DEPTH)).prefill(REQUESTS)
    plain = wave.decode(Answering(lambda view: view.layer < (view.depth if runs else 0)))
    assert plain == wave.decode(Answering(lambda view: torch.full((view.count,), runs)))
    assert [g.layers for g in plain] == [[2, 3 if runs else 2, 2]] * 3


@pytest.mark.parametrize("method", [Calm(), RandomSkip(per="token"), Answering(3)])
def test_per_token_methods_route_no_prompts(method):
    with pytest.raises(DlbenchError, match=f"{type(method).__name__} decides per token"):
        Engine(tiny_models.backbone("llama", DEPTH)).prefill(REQUESTS, method)


def test_a_static_method_routes_a_prompt_without_a_trace():
    backbone = tiny_models.backbone("llama", DEPTH)
    before = trace(backbone)
    Engine(backbone).prefill(REQUESTS, StaticSkip())
    assert trace(backbone) == before


@pytest.mark.parametrize(("ids", "limit"), [((), 3), ((5,), 0), ((5,) * 90, 7)])
def test_texts_that_do_not_fit_are_refused(ids, limit):
    with pytest.raises(DlbenchError, match="document long"):
        Engine(tiny_models.backbone("llama", DEPTH)).prefill([Request("long", ids, limit)])


def test_logits_that_are_not_finite_are_refused():
    model = tiny_models.build("llama", depth=DEPTH)
    with torch.no_grad():
        model.lm_head.weight[7, 0] = torch.nan
    from dlbench.models.backbone import wrap

    with pytest.raises(DlbenchError, match="not finite"):
        Engine(wrap(model)).prefill(REQUESTS).decode()


@dataclass
class Fickle(Method):
    """Say "sequence" and change with the step."""

    never: tuple[int, ...] = ()

    @property
    def scope(self):
        return "token" if self.never else "sequence"

    def live(self, depth):
        return frozenset(range(depth)) - set(self.never) if self.never else None

    def route(self, view):
        return Action.RUN if self.never else view.step % 2 == 1


@pytest.mark.parametrize(("method", "said"), [(Fickle(), "changed its answer"), (Fickle((1,)), "live")])
def test_a_method_is_held_to_its_scope_and_its_live_layers(method, said):
    backbone = tiny_models.backbone("llama", 3)
    wave = Engine(backbone).prefill([Request("a", (5, 6, 7), 6)])
    with pytest.raises(DlbenchError, match=said):
        wave.decode(method)


@dataclass
class Skips(Method):
    """Claims to exit only, and skips a layer."""

    kv = ("recompute",)
    each: bool = False

    def route(self, view):
        if view.layer != 1:
            return Action.RUN
        return torch.full((view.count,), int(Action.SKIP)) if self.each else Action.SKIP


@pytest.mark.parametrize("each", [False, True])
def test_a_method_that_skips_is_refused_under_recompute(each):
    wave = Engine(tiny_models.backbone("llama", 3)).prefill([Request("a", (5, 6, 7), 6)])
    with pytest.raises(DlbenchError, match="kv policy recompute is for methods that exit"):
        wave.decode(Skips(each))
