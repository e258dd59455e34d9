"""What the parts of the benchmark share: the machine, the sizes, and the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from dlbench.bench.clock import Repeats, Stopwatch, Times
from dlbench.bench.models import Sizes
from dlbench.bench.targets import BY_NAME, Target
from dlbench.engine import Engine
from dlbench.models.backbone import Backbone


@dataclass(frozen=True)
class Series:
    """Repeats of one measurement."""

    part: str
    group: str
    """Measurements of one group are compared with each other: a model and a batch size, say."""
    name: str
    unit: str
    repeats: Repeats
    warm_up_s: float | None = None
    """Seconds of the warm-up runs, with compilation and capture; not in the repeats."""


@dataclass(frozen=True)
class Ratio:
    """A ratio, measured once per round and summarised by the median."""

    target: Target
    repeats: Repeats
    how: str = ""
    """How the value comes about, for people."""

    @property
    def value(self) -> float:
        return self.repeats.median

    @property
    def met(self) -> bool | None:
        """Whether the promise is met; None where there is none."""
        return None if self.target.bound is None else self.value >= self.target.bound


@dataclass
class Workbench:
    """Collects the results of one benchmark run."""

    sizes: Sizes
    device: str
    dtype: str
    threads: int
    say: Callable[[str], None] = lambda what: None
    """Told what is being measured."""
    series: list[Series] = field(default_factory=list)
    ratios: dict[str, Ratio] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def watch(self) -> Stopwatch:
        return Stopwatch(torch.device(self.device))

    def engine(
        self, backbone: Backbone, *, kernels: Literal["auto", "stock"] = "auto", metered: bool = False
    ) -> Engine:
        """Return an engine, by default one that counts no FLOPs, so that only the work itself is timed.

        Where it runs slower kernels than were asked for, a note says so.
        """
        engine = Engine(backbone, metered=metered, kernels=kernels)
        if reason := engine.kernels_note:
            note = f"{backbone.name}: {engine.kernels} layers ran, none that are faster: {reason}"
            self.notes += [note] * (note not in self.notes)
        return engine

    def keep_times(self, part: str, group: str, unit: str, times: Times) -> None:
        """Keep the times of a race."""
        for name, values in times.rounds.items():
            self.series.append(Series(part, group, name, unit, Repeats(values), times.warmups[name]))

    def keep(self, part: str, group: str, name: str, unit: str, values: Sequence[float]) -> Repeats:
        """Keep repeats of one measurement."""
        self.series.append(Series(part, group, name, unit, repeats := Repeats(tuple(values))))
        return repeats

    def ratio(self, name: str, values: Sequence[float], how: str = "") -> None:
        """Keep a ratio, one value per round."""
        self.ratios[name] = Ratio(BY_NAME[name], Repeats(tuple(values)), how)

    def worse_of(self, name: str, where: Mapping[str, str]) -> None:
        """Keep the smallest of several ratios under another name.

        Args:
            name: of the new ratio.
            where: name of a ratio → where it was measured.
        """
        worst = min(where, key=lambda one: self.ratios[one].value)
        ratio = self.ratios[worst]
        self.ratios[name] = Ratio(BY_NAME[name], ratio.repeats, f"{where[worst]}: {ratio.how}".removesuffix(": "))
