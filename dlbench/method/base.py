"""What every method is: its parameters, what it declares, and `route`."""

from __future__ import annotations

import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, final

from torch import Tensor, nn

if TYPE_CHECKING:
    from dlbench.method.probe import Probe
    from dlbench.method.view import View

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


@dataclass(frozen=True)
class Route:
    """An answer that says more than who runs."""

    codes: Action | Tensor
    """One action for all tokens of the view, or one code per token: [n], bool or integer."""
    scale: Tensor | None = None
    """What is added to the state is multiplied by this, [n]: by the layer where a token runs it, or a half of it, by
    the method's `bypass` where it skips the layer."""
    memory: Tensor | None = None
    """The tokens' sequences remember this from now on: [n, m]."""


@dataclass(frozen=True)
class Knob:
    """The one parameter that trades compute for quality."""

    name: str
    low: float
    """Value at the smallest layer share."""
    high: float
    """Value at the largest; between the two (low may be the greater number) the share rises monotonically."""


class Prompt(Protocol):
    """What `Method.begin` may see: prompts that were read at full depth, n of them."""

    @property
    def depth(self) -> int:
        """Layers of the backbone."""
        ...

    @property
    def count(self) -> int:
        """N."""
        ...

    def last(self, layer: int) -> Tensor:
        """State of each prompt's last token before a layer named by `Method.reads`: [n, width]."""
        ...

    def mean(self, layer: int) -> Tensor:
        """Mean state of each prompt's tokens before a layer named by `Method.reads`: [n, width]."""
        ...

    def normed_mean(self, layer: int) -> Tensor:
        """The same of states that were each scaled to a mean square of 1: [n, width].

        The first token of many models has a state a thousand times as large as the others, and is most of their mean.
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
            if f.init
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


_RENAMED = {"couples_rows": "batch_dependent", "foresees": "uses_future"}
"""Former name of an attribute -> its name."""


@dataclass
class Method(Parameters, ABC):
    """A rule that routes tokens through layers. Subclasses are dataclasses; their fields are the parameters."""

    deployable: ClassVar[bool] = True
    """False where the method sees what deployment cannot (references, other candidates' outputs, what is to come)."""
    uses_future: ClassVar[bool] = False
    """True where it asks `View.foreseen`; such a method is never deployable."""
    kv: ClassVar[tuple[str, ...]] = ("project", "evict")
    """Supported policies for the keys and values of skipped tokens, default first.

    "project" makes them of the state that passed the layer by, "evict" hides the position in that layer, "recompute"
    carries a token that exited through the rest when a later token needs it: for methods that never skip.
    """
    knob: ClassVar[Knob | None] = None
    """The parameter tuned to a budget, where no closed form does it (see `at`)."""
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Parameter sets that a run takes where none is given, each a row of its own."""
    fitted: ClassVar[bool] = False
    """True where `fit` may have to run (or an artifact be loaded) before `route`; see `learns`."""
    fits_budget: ClassVar[bool] = False
    """True where what is learnt depends on the budget; else one fit serves all budgets."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Read the former names of attributes in plugins that were written before they changed."""
        super().__init_subclass__(**keywords)
        for old, new in _RENAMED.items():
            if old in cls.__dict__ and new not in cls.__dict__:
                warnings.warn(
                    f"{cls.__name__}: `{old}` is called `{new}` now; the next release reads the new name only",
                    FutureWarning,
                    stacklevel=3,  # past that of abc
                )
                setattr(cls, new, cls.__dict__[old])

    @property
    def scope(self) -> Scope:
        """How often the decision may change: never, per sequence, or per token."""
        return "token"

    @property
    def batch_dependent(self) -> bool:
        """Whether a decision depends on the other rows of the batch: then the batch stays as it was made up."""
        return False

    @property
    def learns(self) -> bool:
        """Whether these parameters need a fit."""
        return self.fitted

    @property
    def tuned(self) -> bool:
        """Whether the knob is set to a budget; False gives one row, whatever the budgets."""
        return self.knob is not None

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
        """Train or calibrate on the fit split: may set fields, and whatever `weights` gives."""

    def weights(self) -> dict[str, Tensor]:
        """Learned tensors, stored as safetensors beside the parameters."""
        return {}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take over what `weights` gave."""
        if weights:
            raise ValueError(f"{type(self).__name__} takes no weights")

    def reads(self, depth: int) -> frozenset[int]:
        """Layers before which `begin` looks at the prompt's states."""
        return frozenset()

    def begin(self, prompt: Prompt) -> Tensor | None:
        """What each sequence remembers at first: [n, m]. Its products are charged to `router`."""
        return None

    def bypass(self, layer: int) -> nn.Module | None:
        """What tokens that skip a layer pass through instead: float32 [n, width] -> what is added to it; charged.

        Where an answer has a `scale`, what is added is multiplied by it.
        """
        return None

    def head(self, layer: int) -> nn.Module | None:
        """An exit head of its own for the state before a layer: float32 [n, width] -> [n, vocabulary]; charged."""
        return None

    @abstractmethod
    def route(self, view: View) -> Action | Tensor | Route:
        """Decide for the tokens of `view`: one action for all, one code per token ([n] bool or integer), or a Route."""
