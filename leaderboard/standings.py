"""TEMPORARY stand-in until the statistics package is merged."""
from __future__ import annotations
from collections.abc import Mapping
from dataclasses import dataclass, field
from dlbench.leaderboard.chart import Curve, Frontiers
from dlbench.leaderboard.views import Entry, View
from dlbench.leaderboard.looks import kind_of
from dlbench.stats import Interval

@dataclass(frozen=True, slots=True)
class Place:
    rank: int
    low: int
    high: int
    tie: int | None = None

@dataclass(frozen=True, slots=True)
class Summary:
    label: str
    method: str
    kind: str
    place: Place | None
    area: Interval | None
    at95: str
    at99: str
    kept: Mapping[float, float]
    gaps: Mapping[float, Interval]

@dataclass(frozen=True, slots=True)
class Standings:
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    fronts: Mapping[str, tuple[bool, float]] = field(default_factory=dict)
    frontiers: Mapping[str, Frontiers] = field(default_factory=dict)
    summaries: tuple[Summary, ...] = ()

def standings(view: View, scores) -> Standings:
    places = {}
    budgets = sorted({e.budget for e in view.of("method") if e.budget})
    for b in budgets:
        same = sorted((e for e in view.of("method") if e.budget == b and e.ok and e.retained), key=lambda e: -e.retained)
        for i, e in enumerate(same, 1):
            places[e.id] = Place(i, max(1, i - (i % 3 == 0)), min(len(same), i + (i % 3 == 2)), i // 3 if i % 3 in (0, 2) else None)
    fronts = {e.id: (e.first.pareto, 0.5) for e in view.of("method", "full", "dense")}
    fr = {}
    for axis in view.axes:
        def env(kind):
            pts = sorted((e.costs[axis.key], e.retained) for e in view.entries if kind_of(e) == kind and e.ok and e.retained and axis.key in e.costs)
            out = []; best = -1
            for x, y in pts:
                if y > best: best = y; out.append((x, y))
            if len(out)<2: return None
            xs=[p[0] for p in out]; ys=[p[1] for p in out]
            return Curve(xs, ys, [y-.02 for y in ys], [y+.02 for y in ys])
        fr[axis.key] = {n: c for n, c in (("methods", env("method")), ("controls", env("control"))) if c}
    summ = []
    for i, label in enumerate(dict.fromkeys(e.label for e in view.of("method")), 1):
        mine = [e for e in view.of("method") if e.label == label]
        summ.append(Summary(label, mine[0].method, kind_of(mine[0]), Place(i, i, i), Interval(.5, .45, .55), "not reached", "–", {e.budget: e.retained for e in mine if e.budget and e.retained}, {b: Interval(.4, .3, .5) for b in budgets}))
    return Standings({}, places, fronts, fr, tuple(summ))
