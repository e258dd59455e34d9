"""Confidence exits: each measure and decay against numbers made by hand, and where they may happen."""

import math
from functools import partial

import pytest
import tiny_models
import torch
import toy_task
from fake_view import FakeView
from ready import ready

from dlbench.engine import Engine, Request
from dlbench.engine.routing import live_view
from dlbench.errors import DlbenchError
from dlbench.fit import FitProbe
from dlbench.method import Action, Method, Text, Written
from dlbench.methods.calm import Calm, balance, learn_then_test
from dlbench.methods.calm_oracle import CalmOracle
from dlbench.methods.entropy_exit import EntropyExit
from dlbench.methods.flexi_depth import FlexiDepth
from dlbench.methods.mue import Mue
from dlbench.methods.sorted_exit import SortedExit
from dlbench.models.backbone import wrap
from dlbench.models.exit_head import exit_head

# softmax of logs of probabilities gives the probabilities back
PROBABILITIES = torch.tensor([[0.5, 0.3, 0.2, 0.0 + 1e-30], [0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25]])


ENTROPIES = [
    1 + (0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2)) / math.log(4),
    1 + (0.97 * math.log(0.97) + 0.03 * math.log(0.01)) / math.log(4),
    0.0,
]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Calm(measure="top2"), [0.2, 0.96, 0.0]),
        (Calm(measure="top1"), [0.5, 0.97, 0.25]),
        (SortedExit(), [0.5, 0.97, 0.25]),
        (EntropyExit(), ENTROPIES),
    ],
)
def test_measures_of_the_exit_head(method, expected):
    found = method.confidence(FakeView(rows=3, logits=PROBABILITIES.log()))
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", [Calm(measure="state"), Mue()])
def test_a_state_is_compared_with_the_last_executed_input(method):
    before = torch.tensor([[1.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
    hidden = torch.tensor([[3.0, 4.0], [-1.0, 1.0], [5.0, 0.0]])
    found = method.confidence(FakeView(rows=3, before=before, hidden=hidden))
    torch.testing.assert_close(found, torch.tensor([0.6, 0.0, 1.0]))


def test_decays_at_points_made_by_hand():
    def at(method, step):
        found = method.thresholds(FakeView(rows=2, step=step, limit=[20, 40]))
        return torch.as_tensor(found, dtype=torch.float64).expand(2).tolist()

    # step 0 writes token 1: t/N = 1/20 and 1/40, exp(-4 t/N) = 0.8187308 and 0.9048374
    at_start = {"none": [0.8, 0.8], "paper": [0.8018731, 0.8104837], "code": [0.7854985, 0.7923870]}
    # step 9 writes token 10: t/N = 1/2 and 1/4, exp(-4 t/N) = 0.1353353 and 0.3678794
    later = {"none": [0.8, 0.8], "paper": [0.7335335, 0.7567879], "code": [0.7308268, 0.7494304]}
    for decay in at_start:
        method = Calm(threshold=0.8, decay=decay)
        for step, expected in ((0, at_start[decay]), (9, later[decay])):
            assert at(method, step) == pytest.approx(expected, abs=1e-6)
    assert at(Mue(threshold=0.8), 9) == pytest.approx(later["paper"], abs=1e-6)
    slow = at(Calm(threshold=0.5, decay="code", tau=2.0), 9)
    assert slow[0] == pytest.approx(0.45 + 0.05 * math.exp(-1))


@pytest.mark.parametrize("method", [Calm(threshold=0.7, decay="paper"), Calm(threshold=0.7, decay="code"), Mue()])
@pytest.mark.parametrize("limit", [2, 5, 9])
def test_a_threshold_is_that_of_the_token_that_is_written(method, limit):
    """The authors' loop counts from 0 with the text's first token, which here the prefill writes, up to N - 1."""
    seen = {}

    class Watched(type(method)):
        def thresholds(self, view):
            found = super().thresholds(view)
            seen[int(view.step[0])] = float(torch.as_tensor(found).reshape(-1)[0])
            return found

    watched = Watched.from_params(method.params())
    engine = Engine(tiny_models.backbone("llama", 5))
    (written,) = engine.prefill([Request("a", (5, 6, 7), limit)]).decode(watched)
    assert len(written.tokens) == limit and sorted(seen) == list(range(limit - 1))
    paper = getattr(method, "decay", "paper") == "paper"
    for index in range(1, len(written.tokens)):  # what decoding writes, counted from 0
        fall = math.exp(-4 * index / limit)
        expected = 0.9 * method.threshold + 0.1 * fall * (1 if paper else method.threshold)
        assert seen[index - 1] == pytest.approx(min(1.0, expected), abs=1e-9)


def test_where_each_looks():
    for method in (Calm(), EntropyExit(), *(Calm(measure=m) for m in ("top1", "state", "classifier"))):
        assert method.checked(8) == (1, 2, 3, 4, 5, 6, 7)  # the authors' loop looks after every layer but the last
    assert EntropyExit(check=(2, 4)).checked(8) == (2, 4) and Calm(min_layers=6).checked(8) == (6, 7)
    assert Mue().checked(5) == (1, 2, 3, 4) and Mue(min_layers=3).checked(5) == (3, 4)
    assert SortedExit().checked(16) == (2, 4, 6, 8, 10, 12, 14) and SortedExit(exits=3).checked(16) == (4, 8, 12)
    assert SortedExit(exits=40).checked(4) == (1, 2, 3) and SortedExit(check=(5,)).checked(16) == (5,)


def test_a_batch_leaves_when_its_least_confident_row_may():
    view = FakeView(layer=2, rows=3, logits=PROBABILITIES.log())
    for threshold, answer in ((0.5, Action.RUN), (0.25, Action.EXIT)):
        method = Calm(threshold=threshold, measure="top1", leave="batch")
        assert method.batch_dependent and method.route(view) == answer
    engine = Engine(tiny_models.backbone("llama", 5))
    wave = engine.prefill([Request(str(i), p, 8) for i, p in enumerate(tiny_models.prompts(6))], slots=3)
    together = wave.decode(Calm(threshold=0.1, check=(2, 4), leave="batch"))
    for batch in (together[:3], together[3:]):  # rows of a batch that are still there leave at one layer
        assert batch[0].layers == batch[1].layers == batch[2].layers
    alone = wave.decode(Calm(threshold=0.1, check=(2, 4)))
    assert sum(sum(g.layers) for g in together) > sum(sum(g.layers) for g in alone)


def test_leaves_where_the_confidence_reaches_the_threshold():
    view = FakeView(layer=2, rows=3, logits=PROBABILITIES.log())
    answer = Calm(threshold=0.5, measure="top1").route(view)
    assert answer.tolist() == [Action.EXIT, Action.EXIT, Action.RUN]
    assert len(view.close) == 1  # the threshold is compared where close calls are noted


@pytest.mark.parametrize(
    ("params", "checked"),
    [
        ({}, {1, 2, 3, 4, 5, 6, 7}),
        ({"min_layers": 4}, {4, 5, 6, 7}),
        ({"min_layers": 7}, {7}),
        ({"check": (1, 5)}, {1, 5}),
        ({"check": (1, 5), "min_layers": 3}, {5}),
        ({"check": (3,)}, {3}),
    ],
)
def test_checks_only_where_it_is_told_to(params, checked):
    method = Calm(threshold=-1.0, **params)  # always confident
    method.validate(8)
    left = set()
    for layer in range(8):
        looked = []
        view = FakeView(layer=layer, rows=3)
        view.logits = lambda looked=looked: looked.append(1) or PROBABILITIES.log()
        answer = method.route(view)
        if isinstance(answer, torch.Tensor):
            assert answer.tolist() == [Action.EXIT] * 3
            left.add(layer)
        else:
            assert answer == Action.RUN
        assert bool(looked) == (layer in checked)  # a head that nobody needs is not charged
    assert left == checked


def test_exits_for_real_at_the_checked_layers_only():
    engine = Engine(tiny_models.backbone("llama", 5))
    wave = engine.prefill([Request(str(i), p, 8) for i, p in enumerate(tiny_models.prompts(6))])
    written = wave.decode(Calm(threshold=0.1, check=(2, 4)))
    assert {n for g in written for n in g.layers} == {2, 4, 5}
    for g in written:
        looks = sum(1 + (n > 2) for n in g.layers)  # before layer 2, and before layer 4 by those who stayed
        whole = sum(n == 5 for n in g.layers)  # what was looked at on the way out is not computed again
        assert g.flops["heads"] == engine.costs.head * (looks + whole)


@pytest.mark.parametrize(
    "make",
    [
        partial(Calm, measure="top2"),
        partial(Calm, measure="top1"),
        partial(Calm, measure="state"),
        EntropyExit,
        SortedExit,
        Mue,
    ],
)
def test_the_share_rises_along_the_knob(make):
    """Under a fixed text: more confidence asked for, more layers run by every token."""
    knob = Calm.knob
    torch.manual_seed(0)
    views = []
    for layer in range(1, 8):
        states = torch.randn(2, 40, 6)
        views.append(
            FakeView(layer=layer, rows=40, before=states[0], hidden=states[1], logits=torch.randn(40, 9) * layer)
        )
    before = None
    shares = []
    for i in range(21):
        method = make(threshold=knob.low + (knob.high - knob.low) * i / 20, check=tuple(range(1, 8)))
        alive, layers = torch.ones(40, dtype=torch.bool), torch.ones(40)
        for view in views:
            alive = alive & (method.route(view) != Action.EXIT)
            layers = layers + alive
        assert before is None or bool((layers >= before).all())
        before = layers
        shares.append(float(layers.mean()) / 8)
    assert shares[0] < 0.6 and shares[-1] > 0.98  # a float32 probability can be 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Calm(threshold=1.2), r"threshold must lie in \[-1, 1\], not 1.2"),
        (lambda: Calm(threshold=float("nan")), "not nan"),
        (lambda: Calm(measure="top3"), "top2 or top1 or state or classifier, not 'top3'"),
        (lambda: Calm(decay="fast"), "none or paper or code, not 'fast'"),
        (lambda: Calm(delta=0.0), "delta and epsilon must lie in"),
        (lambda: Calm(leave="never"), "leave must be row or batch, not 'never'"),
        (lambda: SortedExit(exits=0), "exits must be at least 1, not 0"),
        (lambda: Calm(min_layers=0), "min_layers must be at least 1, not 0"),
        (lambda: Calm(check=(0, 3)).validate(8), "before layer 0 of 8; layers 1 to 7"),
        (lambda: Calm(check=(3, 8)).validate(8), "before layer 8 of 8"),
    ],
)
def test_bad_parameters_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_classifier_that_was_never_fitted_says_so():
    wave = Engine(tiny_models.backbone("llama", 5)).prefill([Request("a", (5, 6), 4)])
    with pytest.raises(DlbenchError, match=r"Calm failed .* is not fitted: run `dlbench fit calm"):
        wave.decode(Calm(measure="classifier"))


# ---- calibration


def test_learn_then_test_on_a_table_made_by_hand():
    """n = 100, delta = 0.3, epsilon = 0.05: exp(-200 (0.3 - mean)^2) <= 0.05 where the mean is at most 0.17761."""
    table = {1.0: 0.0, 0.9: 0.10, 0.8: 0.17, 0.7: 0.18, 0.6: 0.05}
    risks = {threshold: [mean] * 100 for threshold, mean in table.items()}
    assert learn_then_test(risks, 0.3, 0.05) == 0.8  # 0.7 fails, and 0.6 is not looked at any more
    assert learn_then_test(risks, 0.3, 0.06) == 0.6  # exp(-200 · 0.12^2) = 0.0561
    assert learn_then_test(risks, 0.2, 0.05) == 1.0
    with pytest.raises(ValueError, match=r"no threshold keeps the risk below delta=0\.1"):
        learn_then_test(risks, 0.1, 0.05)  # 100 documents are too few, whatever they score


class Runs:
    """A probe whose texts get worse as the threshold falls."""

    depth, seed, asked = 8, 0, 0

    def run(self, method, part="tune"):
        self.asked += 1
        threshold = 1.0 if method is None else method.threshold
        text, score = f"{threshold:.2f}", 0.9 * threshold
        return [Written(str(i), text, score, threshold) for i in range(200)]

    def likeness(self, text, other):
        return float(text) / float(other)

    def say(self, done, steps):
        assert done <= steps


@pytest.mark.parametrize(("risk", "chosen"), [("textual", 0.85), ("risk", 0.85)])
def test_calibration_takes_the_last_safe_threshold(risk, chosen):
    """At delta = 0.25 and n = 200 the mean risk may be at most 0.25 - sqrt(ln 20 / 400) = 0.1634."""
    method, probe = Calm(calibrate=risk), Runs()
    assert method.learns and not method.tuned
    method.fit(probe)
    assert method.threshold == chosen  # risks 0.15 and 0.135 pass, 0.2 and 0.18 do not
    assert probe.asked < 10  # what is hopeless is not run


def authors_loss(logits, labels):
    """CALM's loss of the classifier: each layer balanced by itself, then the mean over layers; [layers, n] each."""
    losses = []
    for found, agrees in zip(logits, labels, strict=True):
        positives, negatives = (agrees == 1).sum(), (agrees == 0).sum()
        weight = agrees * (1 - positives / (positives + negatives))
        weight = weight + (1 - agrees) * (1 - negatives / (positives + negatives))
        two = torch.stack([torch.zeros_like(found), found], -1).log_softmax(-1)  # as many logits as answers
        picked = torch.where(agrees == 1, two[..., 1], two[..., 0])
        losses.append(-(weight * picked).sum() / len(found))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("shares", [(0.1, 0.5, 0.9), (0.0, 0.3, 1.0), (0.25, 0.25), (1.0,)])
def test_the_classifier_is_balanced_in_each_layer(shares):
    """In the lower layers few exits agree with the last, in the upper ones most: each layer weighs both alike."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.stack([(torch.arange(40) < 40 * share).float() for share in shares])
    logits = torch.randn(labels.shape, generator=generator)
    found = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, balance(labels))
    assert float(found) == pytest.approx(float(authors_loss(logits, labels)), rel=1e-5, abs=1e-9)
    for weights, agrees in zip(balance(labels), labels, strict=True):
        assert float(weights[agrees == 1].sum()) == pytest.approx(float(weights[agrees == 0].sum()), abs=1e-4)


def test_the_classifier_is_trained_with_the_authors_loss(monkeypatch):
    """What it steps along is the gradient of their loss, on the states and the agreements of the exits."""
    model = tiny_models.build("llama", depth=4)
    backbone, documents = wrap(model, toy_task.Characters()), toy_task.documents(model, 6)
    method = Calm(measure="classifier", check=(1, 2, 3))
    losses = []
    entropy = torch.nn.functional.binary_cross_entropy_with_logits

    def watch(logits, labels, weight):
        loss = entropy(logits, labels, weight)
        losses.append((loss.item(), authors_loss(logits.detach(), labels).item(), logits.shape))
        return loss

    monkeypatch.setattr(torch.nn.functional, "binary_cross_entropy_with_logits", watch)
    method.fit(FitProbe(backbone, toy_task.Scored(), documents, []))
    (text,) = list(FitProbe(backbone, toy_task.Scored(), documents, []).texts())
    assert {shape for *_, shape in losses} == {(3, len(text.states[0]))} and len(losses) == 300
    assert [a for a, _, _ in losses] == pytest.approx([b for _, b, _ in losses], rel=1e-4)


class Shown:
    """A probe of three exits of a model, each of which agrees with the last where one number of the state is large."""

    depth, width, seed, cuts = 4, 12, 0, (1.0, 0.0, -1.0)

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.states = torch.randn(5, 400, self.width, generator=generator)
        self.agrees = torch.stack([self.states[i + 1, :, 3] > cut for i, cut in enumerate(self.cuts)])

    def texts(self, part="learn"):
        def logits(layer):
            writes = torch.ones(400, dtype=torch.long) if layer == 4 else self.agrees[layer - 1].long()
            return torch.nn.functional.one_hot(writes, 2).float()

        yield Text(tuple(self.states), logits)

    def say(self, done, steps):
        assert done <= steps


def accuracies(method, states, agrees):
    """Of each layer, half of what is right among those that agree and half among those that do not: chance is 0.5."""
    found = []
    for layer, right in enumerate(agrees, 1):
        sure = method.confidence(FakeView(hidden=states[layer])) >= 0.5
        found.append(float((sure[right].float().mean() + (~sure[~right]).float().mean()) / 2))
    return found


def test_the_classifier_learns_what_full_depth_would_write():
    """One in six agrees in the lowest layer, one in two in the next, five in six in the third."""
    method, probe = Calm(measure="classifier", check=(1, 2, 3), threshold=0.5), Shown()
    assert method.learns and method.tuned
    method.fit(probe)
    assert probe.agrees.float().mean(1).tolist() == pytest.approx([0.16, 0.5, 0.84], abs=0.06)
    low, middle, high = accuracies(method, probe.states, probe.agrees)
    assert min(low, high) > 0.75 and middle > 0.9


def test_the_classifier_tells_the_states_of_a_model_apart():
    model = tiny_models.build("llama", depth=4)
    with torch.no_grad():
        for layer in model.model.layers[1:]:
            for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                linear.weight.mul_(0.35)
                linear.bias.mul_(0.35)
    documents = toy_task.documents(model, 16)
    backbone = wrap(model, toy_task.Characters())
    method = Calm(measure="classifier", check=(1, 2, 3), threshold=0.5)
    method.fit(FitProbe(backbone, toy_task.Scored(), documents, []))
    texts = list(FitProbe(backbone, toy_task.Scored(), documents, []).texts())
    states = [torch.cat([text.states[layer] for text in texts]) for layer in range(5)]
    writes = [torch.cat([text.logits(layer).argmax(-1) for text in texts]) for layer in range(5)]
    agrees = torch.stack([writes[layer] == writes[4] for layer in (1, 2, 3)])
    assert 0.4 < float(agrees.float().mean()) < 0.8
    assert min(accuracies(method, states, agrees)) > 0.62


def test_the_oracle_of_token_consistency_writes_what_full_depth_does_with_true_keys():
    engine = Engine(tiny_models.backbone("llama", 5, dtype="float64"))
    wave = engine.prefill([Request(str(i), p, 10) for i, p in enumerate(tiny_models.prompts(6))])
    full, exact = wave.decode(), wave.decode(CalmOracle(), kv="recompute")
    assert [g.tokens for g in exact] == [g.tokens for g in full]
    left = [n for g in wave.decode(CalmOracle()) for n in g.layers]
    assert min(left) < 5 and not CalmOracle.deployable


def test_what_full_depth_would_write_is_found_once_per_step(monkeypatch):
    heads, asked = [], []

    class Noting(CalmOracle):
        def route(self, view):
            asked.append(view.layer >= self.min_layers)
            return super().route(view)

    monkeypatch.setattr(live_view, "exit_head", lambda backbone, x: heads.append(len(x)) or exit_head(backbone, x))
    (g,) = Engine(tiny_models.backbone("llama", 5)).prefill([Request("a", (5, 6, 7), 10)]).decode(Noting())
    assert len(heads) == sum(asked) + 9 and len(g.tokens) == 10 and max(g.layers) == 5


@pytest.mark.parametrize("method", [ready(FlexiDepth()), ready(Calm(measure="classifier"))], ids=["bypass", "exit"])
def test_modules_that_are_in_place_are_not_moved(monkeypatch, method):
    wave = Engine(tiny_models.backbone("llama", 5)).prefill([Request("a", (5, 6, 7), 6)])
    monkeypatch.setattr(torch.nn.Module, "to", None)  # it walks through all that a module has, at every call
    assert wave.decode(method)[0].flops["router"]


def test_only_those_that_say_so_foresee():
    class Peeking(Method):
        def route(self, view):
            return view.foreseen(view.depth) > 3

    wave = Engine(tiny_models.backbone("llama", 5)).prefill([Request("a", (5, 6), 4)])
    with pytest.raises(DlbenchError, match="uses_future = True"):
        wave.decode(Peeking())
