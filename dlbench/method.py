"""The interface of a method: everything that a plugin imports.

A method is one small file with one class. It says, for every token and just before every layer, whether the token
runs the layer, skips it or leaves the stack; the engine executes the answer and counts what it cost.

    from dataclasses import dataclass
    from dlbench.method import Action, Method, View

    @dataclass
    class EverySecond(Method):
        '''Run every second layer.'''

        def route(self, view: View) -> Action:
            return Action.SKIP if view.layer % 2 else Action.RUN

State must not live on `self` between calls: rows of a batch come and go, and one instance serves all of them.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, ClassVar, Literal, Protocol, Self, final

import torch
from torch import Tensor

__all__ = ["Action", "Candidate", "Knob", "Method", "Oracle", "Probe", "Router", "Scope", "Static", "View"]

Scope = Literal["static", "sequence", "token"]


class Action(IntFlag):
    """What one token does at one layer."""

    SKIP = 0
    ATTN = 1
    """The attention half of the layer only; it counts by its share of the layer's FLOPs."""
    MLP = 2
    """The feed-forward half only; like SKIP it makes no keys and values."""
    RUN = ATTN | MLP
    EXIT = 4
    """Run neither this layer nor any later one; never combined with another flag."""


class View(ABC):
    """What a method may see just before one layer: the n tokens (one per sequence) that have not exited.

    Tensors are copies; writing to them changes nothing. Properties are computed when read, so a method that answers
    from `layer` alone costs nothing. States and logits are on the backbone's device; facts about the tokens (`row`,
    `step`, `position`, `limit`) and noise are on the CPU, so that a decision made from them alone never waits for it.
    """

    layer: int
    """Index of the layer about to run, 0..depth-1."""
    depth: int
    """Number of layers of the backbone."""

    @property
    @abstractmethod
    def hidden(self) -> Tensor:
        """State that would enter the layer: [n, width]. Not available while a prompt is routed."""

    @property
    @abstractmethod
    def before(self) -> Tensor | None:
        """Input of the last layer that each token *executed*: [n, width]; None while no token has executed any.

        Not the layer below: after a skip that one's output equals `hidden`, and their cosine would be a false 1.
        A token that has executed nothing while others have gets zeros.
        """

    @property
    @abstractmethod
    def embedded(self) -> Tensor:
        """State that entered layer 0: [n, width]."""

    @property
    @abstractmethod
    def row(self) -> Tensor:
        """Index of each token's sequence within the wave: [n], int64."""

    @property
    @abstractmethod
    def step(self) -> Tensor:
        """Decode step of each token, 0 for its row's first forward after the prompt: [n], int64; -1 in a routed prompt.

        Rows enter a batch as others finish, so it differs from row to row.
        """

    @property
    @abstractmethod
    def position(self) -> Tensor:
        """Absolute position of each token, prompt included: [n], int64."""

    @property
    @abstractmethod
    def limit(self) -> Tensor:
        """Most new tokens each sequence may write: [n], int64."""

    @abstractmethod
    def logits(self) -> Tensor:
        """Exit head on `hidden` (final norm and LM head): [n, vocabulary]. Charged to `heads`."""

    @abstractmethod
    def uniform(self, count: int = 1, per: Literal["layer", "token", "sequence"] = "layer") -> Tensor:
        """Noise in [0, 1): [n, count], float64, on the CPU.

        Keyed by seed and document, and by step (per="token") and layer (per="layer"): the same whatever the batch.
        """

    @abstractmethod
    def at_least(self, score: Tensor, threshold: float | Tensor) -> Tensor:
        """`score >= threshold`, [n] bool, noting how close each call was; a threshold may be on the CPU.

        Decisions taken here and closer than the dtype's rounding are named in the samples ("tight"), so that a
        difference between two batch sizes can be told from a fault.
        """


@dataclass(frozen=True)
class Knob:
    """The one parameter that trades compute for quality."""

    name: str
    low: float
    """Value at the smallest layer share."""
    high: float
    """Value at the largest; between the two (low may be the greater number) the share rises monotonically."""


class Probe(Protocol):
    """What `Method.fit` is handed: the fit split of one task on one frozen backbone."""

    @property
    def depth(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def budget(self) -> float | None: ...

    def train(self, router: Router, *, share: float, steps: int, lr: float, weight: float) -> list[float]:
        """Train `router` through the frozen backbone under teacher forcing; returns the loss per step.

        Args:
            router: its `module()` is trained in place.
            share: target layer share of the reference tokens.
            steps: optimiser steps.
            lr: AdamW learning rate.
            weight: weight of the cost term against the cross entropy.
        """
        ...


class Parameters:
    """Parameters are dataclass fields; they go to and come from JSON values."""

    @final
    def params(self) -> dict[str, Any]:
        """Parameters as JSON values."""
        return {
            f.name: list(v) if isinstance(v := getattr(self, f.name), (tuple, frozenset)) else v
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
        }

    @classmethod
    @final
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """Build from JSON values; lists become tuples.

        Raises:
            ValueError: an unknown name, or a value that the method refuses.
        """
        known = {f.name for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
        if unknown := sorted(set(params) - known):
            raise ValueError(f"no parameter {unknown[0]!r}; there is {', '.join(sorted(known)) or 'none'}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in params.items()})


@dataclass
class Method(Parameters, ABC):
    """A rule that routes tokens through layers. Subclasses are dataclasses; their fields are the parameters."""

    deployable: ClassVar[bool] = True
    """False where the method sees what deployment cannot (references, other candidates' outputs)."""
    couples_rows: ClassVar[bool] = False
    """True where a decision depends on the other rows of the batch: then the batch stays as it was made up."""
    kv: ClassVar[tuple[str, ...]] = ("project", "evict")
    """Supported policies for the keys and values of skipped tokens, default first.

    "project" makes them of the state that passed the layer by, "evict" hides the position in that layer, "recompute"
    carries a token that exited through the rest when a later token needs it: for methods that never skip.
    """
    knob: ClassVar[Knob | None] = None
    """The parameter tuned to a budget, where no closed form does it (see `at`)."""
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Parameter sets that a run of "all methods" takes, each a row of its own."""
    fitted: ClassVar[bool] = False
    """True where `fit` must run (or an artifact be loaded) before `route`."""

    @property
    def scope(self) -> Scope:
        """How often the decision may change: never, per sequence, or per token."""
        return "token"

    def live(self, depth: int) -> frozenset[int] | None:
        """Layers that decoding can ever run; None means any. No cache is kept and no fill done outside."""
        return None

    def at(self, budget: float, depth: int) -> Self | None:
        """This method at a layer share, in closed form; itself where it has one share; None where the knob is tuned."""
        return None

    def validate(self, depth: int) -> None:
        """Check the parameters against a backbone's depth.

        Raises:
            ValueError: a parameter does not fit; the message says which and what would.
        """

    def fit(self, probe: Probe) -> None:
        """Train or calibrate on the fit split."""

    def weights(self) -> dict[str, Tensor]:
        """Learned tensors, stored as safetensors beside the parameters."""
        return {}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take over what `weights` gave."""
        if weights:
            raise ValueError(f"{type(self).__name__} takes no weights")

    @abstractmethod
    def route(self, view: View) -> Action | Tensor:
        """Decide for the tokens of `view`: one action for all, or one code per token ([n] bool or integer)."""


@dataclass
class Static(Method):
    """A fixed set of layers, the same for every token of every sequence."""

    @property
    @final
    def scope(self) -> Scope:
        return "static"

    @abstractmethod
    def layers(self, depth: int) -> frozenset[int]:
        """The executed layers of a backbone of `depth` layers."""

    @final
    def live(self, depth: int) -> frozenset[int]:
        return self.layers(depth)

    def validate(self, depth: int) -> None:
        chosen = self.layers(depth)
        if not chosen or min(chosen) < 0 or max(chosen) >= depth:
            raise ValueError(f"layers {sorted(chosen)} do not fit a backbone of {depth} layers")

    @final
    def route(self, view: View) -> Action:
        return Action.RUN if view.layer in self.layers(view.depth) else Action.SKIP


@dataclass
class Router(Method):
    """A learned per-token gate: the layer runs where `score >= threshold`.

    The score is differentiable, so that `Probe.train` can train the module behind it with straight-through gates.
    """

    fitted: ClassVar[bool] = True
    knob: ClassVar[Knob | None] = Knob("threshold", 12.0, -12.0)

    threshold: float = 0.0

    @abstractmethod
    def module(self, depth: int, width: int) -> torch.nn.Module:
        """The trainable part, made on first use and kept; called with (hidden [..., width], layer) -> score [...].

        States come as float32 whatever the backbone's dtype; the engine moves the module to the backbone's device.
        """

    @abstractmethod
    def gated(self, depth: int) -> frozenset[int]:
        """Layers that have a gate; the others always run."""

    def noise(self, view: View) -> Tensor | float:
        """Added to the score at evaluation: [n]; 0 for a deterministic gate."""
        return 0.0

    @final
    def route(self, view: View) -> Action | Tensor:
        if view.layer not in self.gated(view.depth):
            return Action.RUN
        hidden = view.hidden
        module = self.module(view.depth, hidden.shape[-1])
        if next(module.parameters(), hidden).device != hidden.device:
            module.to(hidden.device)
        score = module(hidden.float(), view.layer)
        run = view.at_least(score + self.noise(view), self.threshold)
        return run.to(torch.uint8) * int(Action.RUN)


@dataclass(frozen=True)
class Candidate:
    """One fixed set of executed layers that an oracle may choose for a document."""

    name: str
    layers: tuple[int, ...]


@dataclass
class Oracle(Parameters, ABC):
    """Chooses among published candidates per document, from how each of them scored. Never deployable."""

    deployable: ClassVar[bool] = False
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    @abstractmethod
    def candidates(self, depth: int) -> list[Candidate]:
        """The sets it may choose from, without duplicates; the full set is among them."""

    def validate(self, depth: int) -> None:
        """Check the parameters against a backbone's depth.

        Raises:
            ValueError: no candidate, one that does not fit, or the same layers or name twice.
        """
        found = self.candidates(depth)
        if not found:
            raise ValueError("the oracle has no candidates")
        for c in found:
            if not c.layers or min(c.layers) < 0 or max(c.layers) >= depth:
                raise ValueError(f"candidate {c.name!r} does not fit a backbone of {depth} layers")
        for i, c in enumerate(found):
            for other in found[:i]:
                if c.name == other.name or set(c.layers) == set(other.layers):
                    raise ValueError(f"candidates {other.name!r} and {c.name!r} share their name or their layers")
