"""The base class of methods, and the data that a method may use while it is fitted."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NotRequired, Protocol, Self, TypedDict, Unpack

from torch import Tensor, nn

from dlbench.method.actions import Action, Knob, Parameters, Prompt, Route, Scope
from dlbench.method.view import View

FitPart = Literal["learn", "tune"]
"""Part of the fit split: documents to learn from (70 %), and documents to set thresholds on (30 %)."""


@dataclass(frozen=True)
class Written:
    """What a method generated for one document of the fit split, free-running."""

    id: str
    text: str
    score: float
    """The task's primary metric against the references."""
    share: float
    """Executed layers over depth, per decode forward."""


@dataclass(frozen=True)
class Text:
    """Decode forwards of references under teacher forcing at full depth: n tokens of several documents."""

    states: tuple[Tensor, ...]
    """State before each layer, and after the last: depth + 1 times [n, width], in the backbone's dtype, on its device.
    """
    logits: Callable[[int], Tensor]
    """The exit head on the state before a layer, `depth` for the full stack: [n, vocabulary], on the same device."""


class TrainOptions(TypedDict):
    """How `Probe.train` trains a router."""

    steps: int
    """Optimiser steps."""
    lr: float
    """Learning rate of AdamW; it falls linearly to 0."""
    weight: float
    """Weight of the cost in the loss."""
    cost: NotRequired[Literal["squared", "absolute", "linear"]]
    """Kind of cost, see `Probe.train`; "squared" by default."""
    share: NotRequired[float]
    """Target layer share of the decoded tokens; 0.5 by default."""
    noise: NotRequired[bool]
    """True (the default): gates are sampled (Gumbel, straight-through). False: cut at the threshold."""
    rises: NotRequired[bool]
    """Whether the weight of the cost rises from 0, as weight · sin(π/2 · step / steps); False by default."""


class Probe(Protocol):
    """The fit split of one task on one frozen backbone. Compute spent here is counted apart from inference."""

    @property
    def depth(self) -> int:
        """Layers of the backbone."""
        ...

    @property
    def width(self) -> int:
        """Entries of a token's hidden state."""
        ...

    @property
    def seed(self) -> int:
        """Seed of the fit; `--fit-seeds` gives others."""
        ...

    @property
    def budget(self) -> float | None:
        """Target layer share, for methods whose fit depends on it (`Method.fits_budget`)."""
        ...

    def ids(self, part: FitPart) -> Sequence[str]:
        """Ids of the documents of a part, in order."""
        ...

    def texts(self, part: FitPart = "learn") -> Iterator[Text]:
        """States and exit logits of the references' tokens, a few documents at a time."""
        ...

    def similarity(self, part: Action) -> list[float]:
        """Mean cosine between the input and the output of each layer, or of one half of it, residual included: [depth].

        Over all tokens of the prompts and references to learn from, at full depth.
        """
        ...

    def cost(self, layer: int, part: Action) -> float:
        """Share of a layer's FLOPs that one half of it takes, in [0, 1]."""
        ...

    def nll(self, method: Method, texts: int | None = None) -> float:
        """Mean negative log-likelihood of the references to learn from under a static plan, in nats per token.

        Layers are skipped where decoding would skip them. Where prompts run at full depth, so does the prompt's last
        token, and the first token of a reference, which it predicts, is left out. Where prompts are routed, all tokens
        are under the plan and every token of a reference counts.

        Args:
            method: the plan, a `Static`.
            texts: number of references, the first ones; None for all.

        Raises:
            TypeError: the method is no `Static`.
        """
        ...

    def prompts(self, layers: Sequence[int], part: FitPart = "learn") -> Prompt:
        """States of the prompts before the given layers, in the order of `ids`."""
        ...

    def run(self, method: Method | None, part: FitPart = "tune") -> list[Written]:
        """Decode greedily and free-running with a method, or at full depth for None; in the order of `ids`."""
        ...

    def likeness(self, text: str, other: str) -> float:
        """ROUGE-L of two texts, in [0, 1]."""
        ...

    def train(self, router: Method, **options: Unpack[TrainOptions]) -> list[float]:
        """Train a router through the frozen backbone under teacher forcing; returns the loss per step.

        The loss is the cross entropy of the references plus `weight` times a cost:

            squared    (mean executed layer share of all tokens - share)²
            absolute   mean over tokens of |executed layer share of the token - share|, without `Router.spared` tokens
            linear     mean share of open gates

        Args:
            router: a `Router`; its `module()` is trained in place.
            **options: see `TrainOptions`.

        Raises:
            TypeError: the method is no `Router`.
        """
        ...

    def say(self, done: int, steps: int) -> None:
        """Show progress."""
        ...


_RENAMED = {"couples_rows": "batch_dependent", "foresees": "uses_future"}
"""Former name of an attribute → its name."""


@dataclass
class Method(Parameters, ABC):
    """A rule that routes tokens through layers. Subclasses are dataclasses; their fields are the parameters."""

    deployable: ClassVar[bool] = True
    """False where the method uses what deployment does not have: references, other candidates' outputs, the future."""
    uses_future: ClassVar[bool] = False
    """True where it calls `View.foreseen`; such a method is never deployable."""
    kv: ClassVar[tuple[str, ...]] = ("project", "evict")
    """Supported policies for the keys and values of skipped tokens, default first.

    "project" computes them from the state that bypassed the layer, "evict" hides the position in that layer,
    "recompute" runs the remaining layers of an exited token when a later token attends to it: for methods that never
    skip.
    """
    knob: ClassVar[Knob | None] = None
    """The parameter that is tuned to a budget, where `at` has no closed form for it."""
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Parameter sets that a run takes by default, one row each."""
    fitted: ClassVar[bool] = False
    """True where `fit` may have to run (or an artifact be loaded) before `route`; see `learns`."""
    fits_budget: ClassVar[bool] = False
    """True where the fit depends on the budget; otherwise one fit serves all budgets."""
    fit_tokens: ClassVar[int | None] = 32_768
    """Bound of a fit: most tokens of the documents to learn from, and most of those to tune on, prompts and references
    together; None takes all documents. By default 128 texts of 256 tokens."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Accept the former names of attributes, with a warning, in plugins written before they were renamed."""
        super().__init_subclass__(**keywords)
        for old, new in _RENAMED.items():
            if old in cls.__dict__ and new not in cls.__dict__:
                warnings.warn(
                    f"{cls.__name__}: `{old}` is called `{new}` now; the next release reads the new name only",
                    FutureWarning,
                    stacklevel=3,  # beyond the frame of abc
                )
                setattr(cls, new, cls.__dict__[old])

    @property
    def scope(self) -> Scope:
        """How often the decision may change: never, per sequence, or per token."""
        return "token"

    @property
    def batch_dependent(self) -> bool:
        """Whether a decision depends on the other rows of the batch; then a batch keeps its rows until all are done."""
        return False

    @property
    def learns(self) -> bool:
        """Whether these parameters need a fit."""
        return self.fitted

    @property
    def tuned(self) -> bool:
        """Whether the knob is set to a budget; False gives a single row, whatever the budgets."""
        return self.knob is not None

    def live(self, depth: int) -> frozenset[int] | None:
        """Layers that decoding can ever run; None means any. The others make no keys and values."""
        return None

    def at(self, budget: float, depth: int) -> Self | None:
        """This method at a layer share, in closed form; itself where it has one share; None where the knob is tuned."""
        return None

    def validate(self, depth: int) -> None:
        """Check the parameters against a backbone's depth.

        Raises:
            ValueError: a parameter does not fit; the message names it and says what would fit.
        """

    def fit(self, probe: Probe) -> None:
        """Train or calibrate on the fit split: may set fields, and the tensors that `weights` returns."""

    def weights(self) -> dict[str, Tensor]:
        """Learned tensors, stored as safetensors beside the parameters."""
        return {}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Load what `weights` returned."""
        if weights:
            raise ValueError(f"{type(self).__name__} takes no weights")

    def reads(self, depth: int) -> frozenset[int]:
        """Layers before which `begin` reads the prompt's states."""
        return frozenset()

    def begin(self, prompt: Prompt) -> Tensor | None:
        """Initial memory of each sequence: [n, m], of any dtype and on any device; `View.memory` keeps both.

        Its matrix products are charged to `router`.
        """
        return None

    def bypass(self, layer: int) -> nn.Module | None:
        """Module that tokens which skip a layer go through instead: float32 [n, width] → added to the state; charged.

        Where a route has a `scale`, the module's output is multiplied by it.
        """
        return None

    def head(self, layer: int) -> nn.Module | None:
        """The method's own exit head before a layer: float32 [n, width] → [n, vocabulary]; charged."""
        return None

    @abstractmethod
    def route(self, view: View) -> Action | bool | Tensor | Route:
        """Decide for the tokens of `view`: one answer for all, or one per token.

        True runs the layer, False skips it. A tensor is [n], bool or integer codes of `Action`, on any device; with
        floats or another shape the method ends with a MethodError. A `Route` adds a scale or new memory.
        """
