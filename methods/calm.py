"""CALM: confident adaptive language modelling (Schuster et al., arXiv 2207.07061).

A token leaves before layer l when its confidence there reaches the threshold of its step:

    top2         p1 - p2 of the exit head's softmax
    top1         p1 of the exit head's softmax
    state        cosine of the state and the input of the last executed layer
    classifier   a learned linear classifier on the state: will full depth write the same token?

Thresholds may decay over the text: "paper" clip(0.9·λ + 0.1·exp(-tau·t/N)), "code" λ·(0.9 + 0.1·exp(-tau·t/N)), where t
is the number of the token that is written, 0 for the text's first, of at most N. With `calibrate` the threshold is not
tuned to a budget but chosen by Learn-then-Test: of a grid from 1 downwards, on free-running texts of the tune part, the
last one before the first for which the hypothesis "the risk exceeds delta" cannot be rejected at level epsilon
(Hoeffding's bound). The risk of a text is 1 - ROUGE-L to what full depth writes ("textual"), or how much worse than
full depth the task's metric finds it ("risk").

Faithful: the measures, looked at before every layer, both decays, the classifier's target and its loss, balanced in
each layer, on a frozen backbone, the calibration, and the state passed up so that upper layers project their own K and
V. Different: the text's first token, which the prefill writes, never leaves early; rows of a batch leave one by one
(`leave=batch` waits for the least confident row, as the authors' code does); the classifier's input is scaled to a mean
square of 1; and the backbone is not trained for exits (`dlbench train sorted` makes one that is).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from dlbench.method import Exit, Probe, View

GRID = tuple(i / 20 for i in range(20, -1, -1))
"""Thresholds that are tested, the safest first."""


def learn_then_test(risks: Mapping[float, list[float]], delta: float, epsilon: float) -> float:
    """Threshold by fixed-sequence testing: the last of `risks`, safest first, before the first that is not rejected.

    Args:
        risks: threshold -> risk of each text, in [0, 1].
        delta: tolerated mean risk.
        epsilon: probability with which the mean risk may exceed it after all.

    Raises:
        ValueError: not even the first is safe.
    """
    chosen = None
    for threshold, found in risks.items():
        mean = sum(found) / len(found)
        p = math.exp(-2 * len(found) * max(0.0, delta - mean) ** 2)
        if p > epsilon:
            break
        chosen = threshold
    if chosen is None:
        raise ValueError(
            f"no threshold keeps the risk below delta={delta} with epsilon={epsilon} on these documents; raise one of "
            "them, or give the fit split more documents"
        )
    return chosen


def balance(same: Tensor) -> Tensor:
    """Weights under which both answers count alike in each layer, where the lower ones mostly say no, the upper yes.

    Args:
        same: 1 where an exit writes what full depth would: [layers, n].

    Returns:
        [layers, n]: for each answer the share of the other one in its layer.
    """
    agreeing = same.mean(-1, keepdim=True)
    return torch.where(same > 0, 1 - agreeing, agreeing)


@dataclass
class Calm(Exit):
    """Leave as soon as the exit head, the state or a classifier is confident."""

    fitted: ClassVar[bool] = True

    measure: Literal["top2", "top1", "state", "classifier"] = "top2"
    decay: Literal["none", "paper", "code"] = "none"
    tau: float = 4.0
    calibrate: Literal["none", "textual", "risk"] = "none"
    """Choose the threshold by Learn-then-Test, with this risk."""
    delta: float = 0.25
    epsilon: float = 0.05
    _classifier: nn.Linear | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("measure", "decay", "calibrate"):
            known: tuple[str, ...] = KNOWN[name]
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be {' or '.join(known)}, not {getattr(self, name)!r}")
        if not (0 < self.delta < 1 and 0 < self.epsilon < 1):
            raise ValueError(f"delta and epsilon must lie in (0, 1), not {self.delta} and {self.epsilon}")

    @property
    def learns(self) -> bool:
        return self.measure == "classifier" or self.calibrate != "none"

    @property
    def tuned(self) -> bool:
        return self.calibrate == "none"

    def thresholds(self, view: View) -> float | Tensor:
        if self.decay == "none":
            return self.threshold
        decayed = torch.exp(-self.tau * (view.step + 1).double() / view.limit)  # step 0 writes the second token
        if self.decay == "paper":
            return (0.9 * self.threshold + 0.1 * decayed).clamp(0, 1)
        return self.threshold * (0.9 + 0.1 * decayed)

    def confidence(self, view: View) -> Tensor:
        if self.measure == "state":
            before = view.before
            assert before is not None  # min_layers >= 1 and nothing is skipped, so layer 0 has run
            return torch.cosine_similarity(before.float(), view.hidden.float(), dim=-1)
        if self.measure == "classifier":
            if self._classifier is None:
                raise ValueError("the classifier is not fitted: run `dlbench fit calm --set calm.measure=classifier`")
            hidden = view.hidden
            if self._classifier.weight.device != hidden.device:
                self._classifier.to(hidden.device)
            sure: Tensor = self._classifier(_scaled(hidden))[:, 0].sigmoid()
            return sure
        best = view.logits().float().softmax(-1).topk(2, dim=-1).values
        return best[:, 0] - best[:, 1] if self.measure == "top2" else best[:, 0]

    def fit(self, probe: Probe) -> None:
        if self.measure == "classifier":
            self._classifier = self._train(probe)
        if self.calibrate != "none":
            self.threshold = learn_then_test(self._risks(probe), self.delta, self.epsilon)

    def _train(self, probe: Probe, steps: int = 300) -> nn.Linear:
        """Will the token be the same at full depth?"""
        states, same = [], []
        for text in probe.texts():
            final, checked = text.logits(probe.depth).argmax(-1), self.checked(probe.depth)
            states.append(torch.stack([_scaled(text.states[layer]) for layer in checked]))
            same.append(torch.stack([text.logits(layer).argmax(-1) == final for layer in checked]))
        x, y = torch.cat(states, 1), torch.cat(same, 1).float()  # [layers, n, width] and [layers, n]
        torch.manual_seed(probe.seed)
        classifier, weight = nn.Linear(probe.width, 1).to(x.device), balance(y)
        optimiser = torch.optim.AdamW(classifier.parameters(), lr=1e-2)
        for step in range(steps):
            loss = nn.functional.binary_cross_entropy_with_logits(classifier(x)[..., 0], y, weight)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            probe.say(step + 1, steps)
        return classifier.requires_grad_(False)

    def _risks(self, probe: Probe) -> dict[float, list[float]]:
        """Risk of every text at each threshold, up to the first that is hopeless."""
        full = probe.run(None)
        found: dict[float, list[float]] = {}
        for number, threshold in enumerate(GRID):
            self.threshold = threshold
            written = probe.run(self)
            if self.calibrate == "textual":
                found[threshold] = [1 - probe.likeness(w.text, f.text) for w, f in zip(written, full, strict=True)]
            else:
                found[threshold] = [min(1.0, max(0.0, f.score - w.score)) for w, f in zip(written, full, strict=True)]
            probe.say(number + 1, len(GRID))
            if sum(found[threshold]) / len(full) > self.delta:
                break
        return found

    def weights(self) -> dict[str, Tensor]:
        return {} if self._classifier is None else dict(self._classifier.state_dict())

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        if weights:
            self._classifier = nn.Linear(weights["weight"].shape[1], 1).requires_grad_(False)
            self._classifier.load_state_dict(dict(weights))


KNOWN: dict[str, Any] = {
    "measure": ("top2", "top1", "state", "classifier"),
    "decay": ("none", "paper", "code"),
    "calibrate": ("none", "textual", "risk"),
}


def _scaled(hidden: Tensor) -> Tensor:
    """States of a mean square of 1: they grow with depth, and one classifier serves all layers."""
    hidden = hidden.float()
    return hidden * hidden.square().mean(-1, keepdim=True).add(1e-6).rsqrt()
