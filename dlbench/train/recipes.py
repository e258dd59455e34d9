"""Training recipes: which exits have a loss, which layers a text drops, which layers a decoded token runs.

A recipe only computes numbers; `dlbench.train.objective` applies it to a model. Layers count from 0, an exit n is the
state after the first n layers, with the model's own final norm and head.

sorted       Sorted fine-tuning, SoFT (Valipour et al., arXiv 2309.08968): the sub-models are prefixes, the loss is the
             mean of their cross entropies. The paper's prefixes are 12, 16, …, 40 of 40 layers.
layerskip    LayerSkip (Elhoushi et al., arXiv 2404.16710): a text drops layer l with p_max·(e^{l·ln2/(L-1)} - 1); the
             early-exit loss weighs the exit after layer l by scale·(0 + 1 + … + l), the last one by
             L-1 + scale·(0 + … + L-2), divided by the sum of those that take part in the step.
skip-tuned   Plain fine-tuning while a fixed set of layers is skipped, as in Glavas et al. (arXiv 2410.20022): prompts
             run every layer, decoded tokens the set. The paper fine-tunes for each set anew; `dlbench.train.sets`
             makes one training of each of several methods and budgets.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dlbench.errors import DlbenchError
from dlbench.registry import methods as registry

if TYPE_CHECKING:
    from dlbench.method import Static


@dataclass(frozen=True)
class Recipe(ABC):
    """How a backbone is trained; its fields are its options."""

    name: ClassVar[str]

    @abstractmethod
    def validate(self, depth: int) -> None:
        """Check the options against a backbone's depth.

        Raises:
            DlbenchError: one is invalid; the message says which, and what would be valid.
        """

    @abstractmethod
    def weights(self, depth: int, step: int) -> dict[int, float]:
        """Return the exits that have a loss in a step, shallowest first, with their weights, which sum to 1."""

    def dropout(self, depth: int) -> tuple[float, ...]:
        """Return, for each layer, the probability that a text skips it."""
        return (0.0,) * depth

    def layers(self, depth: int) -> frozenset[int]:
        """Return the layers that decoded tokens run."""
        return frozenset(range(depth))

    @property
    def routes_prompt(self) -> bool:
        """Whether prompts, too, run those layers only."""
        return False

    @abstractmethod
    def measured(self, depth: int) -> dict[str, frozenset[int]]:
        """Return the sets of layers to measure before and after the training, by name; full depth is one of them."""


def ladder(depth: int) -> tuple[int, ...]:
    """Return about seven evenly spaced exits, from a quarter of the depth to all of it."""
    step = max(1, round(depth / 8))
    return tuple(n for n in range(depth, 0, -step) if 4 * n >= depth)[::-1]


def prefixes(exits: tuple[int, ...], depth: int) -> dict[str, frozenset[int]]:
    """Return the sets of layers up to each exit, by name; full depth is always one of them."""
    early = {f"exit {n}": frozenset(range(n)) for n in sorted(set(exits)) if n < depth}
    return {**early, "full": frozenset(range(depth))}


@dataclass(frozen=True)
class Sorted(Recipe):
    """Train several prefixes of the layers at once, each as a model of its own."""

    name = "sorted"

    exits: tuple[int, ...] = ()
    """Prefixes by their number of layers; empty for about seven, from a quarter of the depth. Full depth is always
    one."""

    def validate(self, depth: int) -> None:
        for n in self.exits:
            if not 1 <= n <= depth:
                raise DlbenchError(f"exit {n}: the model has {depth} layers; give numbers from 1 to {depth}")

    def weights(self, depth: int, step: int) -> dict[int, float]:
        chosen = sorted({*(self.exits or ladder(depth)), depth})
        return {n: 1 / len(chosen) for n in chosen}

    def measured(self, depth: int) -> dict[str, frozenset[int]]:
        return prefixes(self.exits or ladder(depth), depth)


@dataclass(frozen=True)
class LayerSkip(Recipe):
    """Train with layer dropout and an early-exit loss, both rising with depth."""

    name = "layerskip"

    p_max: float = 0.1
    """Probability that a text drops the last layer."""
    scale: float = 1.0
    """Weight of the early exits against the last."""
    curriculum: Literal["rotational", "all"] = "rotational"
    """Exits with a loss in a step: every `stride`-th, shifted by one layer each step, or all; the last one always."""
    stride: int = 0
    """Layers between exits; 0 for a quarter of the depth."""

    def validate(self, depth: int) -> None:
        if not 0 <= self.p_max < 1:
            raise DlbenchError(f"layer dropout {self.p_max}: give a probability from 0 up to, not including, 1")
        if not 0 <= self.scale < math.inf:
            raise DlbenchError(f"exit scale {self.scale}: give a number from 0, such as 1")
        if not 0 <= self.stride <= depth:
            raise DlbenchError(f"exit stride {self.stride}: give a number from 1 to {depth}, the model's layers")

    def weights(self, depth: int, step: int) -> dict[int, float]:
        stride = 1 if self.curriculum == "all" else self.stride or max(1, depth // 4)
        last = depth - 1
        rising = {n: self.scale * n * (n + 1) / 2 for n in range(last) if (n - step) % stride == 0}
        rising[last] = max(last, 1) + self.scale * (last - 1) * last / 2
        total = sum(rising.values())
        return {n + 1: weight / total for n, weight in rising.items() if weight}

    def dropout(self, depth: int) -> tuple[float, ...]:
        rise = math.log(2) / max(1, depth - 1)
        return tuple(self.p_max * math.expm1(rise * layer) for layer in range(depth))

    def measured(self, depth: int) -> dict[str, frozenset[int]]:
        return prefixes(ladder(depth), depth)


@dataclass(frozen=True)
class SkipTuned(Recipe):
    """Fine-tune while decoded tokens skip the layers that a static method skips."""

    name = "skip-tuned"

    method: str = "static_skip"
    """A static method: its name, or the path of a plugin file."""
    params: Mapping[str, Any] = field(default_factory=dict)
    prompt: Literal["full", "routed"] = "full"
    budget: float | None = None
    """Share of the layers in the method's set; None: as its parameters say."""

    def static(self, depth: int) -> Static:
        """Return the method with its parameters, at the budget.

        Raises:
            DlbenchError: it is not static, refuses a parameter, must be fitted first, or takes no budget.
        """
        from dlbench.method import Static

        name = registry.name_of(self.method)
        cls = registry.load(self.method)
        if not issubclass(cls, Static):
            raise DlbenchError(f"method {name!r} has no fixed set of layers: skip-tuned takes a static one")
        try:
            made = cls.from_params(self.params)
            if made.learns:
                raise DlbenchError(
                    f"method {name!r} learns its set: give what `dlbench fit` found as parameters (--set {name}.…), or "
                    "the layers themselves to static_skip (--set static_skip.only=[…])"
                )
            at = made if self.budget is None else made.at(self.budget, depth)
        except (ValueError, TypeError) as error:
            raise DlbenchError(f"method {name!r}: {error}") from error
        if at is None:
            raise DlbenchError(f"method {name!r} has no set of its own for a budget: give its parameters with --set")
        return at

    def validate(self, depth: int) -> None:
        try:
            self.static(depth).validate(depth)
        except ValueError as error:
            raise DlbenchError(f"method {registry.name_of(self.method)!r}: {error}") from error

    def weights(self, depth: int, step: int) -> dict[int, float]:
        return {depth: 1.0}

    def layers(self, depth: int) -> frozenset[int]:
        return self.static(depth).layers(depth)

    @property
    def routes_prompt(self) -> bool:
        return self.prompt == "routed"

    def measured(self, depth: int) -> dict[str, frozenset[int]]:
        name = registry.name_of(self.method)
        if self.budget is not None:
            name += f" @ {self.budget:g}"
        tuned, full = self.layers(depth), frozenset(range(depth))
        return {"full": full} if tuned == full else {name: tuned, "full": full}


RECIPES: dict[str, type[Recipe]] = {cls.name: cls for cls in (Sorted, LayerSkip, SkipTuned)}
