"""Budgets that fit a model: five numbers of layers between those that keep 98 % of full depth's quality and a third.

How far a model can be thinned before its quality collapses differs from model to model, so shares that are fixed
beforehand may all lie in the ruins or all on the plateau. The quality over the number of layers is measured once, on
a few documents of the tune part (`dlbench.running.tune_part`), under `RULE`: of the rules that need no fit it is the
one that shows what skipping can keep, since it leaves both ends of the model alone. (Evenly thinned from layer 0 on,
`static_skip` leaves out the last layer first, and an early exit the last several; either ruins a model that was not
trained for it, and a budget that they can meet says little of the others.) Layers that are left out are counted 1, 2,
3, 4, 6, 8, 12, 16, … since pre-trained models bend within the first few; the curve is made monotone (isotonic
regression, several tasks by their mean) and read linearly in between.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlbench.evaluation.aggregate import mean_chance
from dlbench.evaluation.settings import Setting, full
from dlbench.method import Method
from dlbench.models.loading import of_embedded
from dlbench.records.run_folder import RUN_FILE
from dlbench.registry import methods as registry
from dlbench.running.config import RunSpec
from dlbench.running.job import Job
from dlbench.running.tune_part import TunePart, TuneParts

FIXED = (0.25, 0.5, 0.75)
"""Budgets of embedded models, and of those whose quality says nothing."""
RULE = "unified_skip"
"""The method whose quality is measured."""
COUNT = 5
"""Number of budgets that are chosen, where the model has so many layers."""
HIGH, LOW = 0.98, 1 / 3
"""Shares of full depth's quality that the highest and the lowest budget keep."""


@dataclass(frozen=True)
class ChosenBudgets:
    """The budgets of one backbone, and what they were chosen by.

    Attributes:
        sha256: of the backbone, which need not be the only one of its name.
        budgets: shares of the layers, from the lowest on.
        kept: layers that ran → share of full depth's quality kept; empty where full depth itself scores nothing.
        documents: task → number of documents that this was measured on.
    """

    backbone: str
    sha256: str
    depth: int
    budgets: tuple[float, ...]
    kept: Mapping[int, float]
    documents: Mapping[str, int]

    @property
    def line(self) -> str:
        """What people are told."""
        if not self.budgets:
            return f"no budgets for {self.backbone}: its one layer cannot be left out; --budget 1 runs it"
        shown = ", ".join(f"{100 * budget:.4g}" for budget in self.budgets)
        head = f"budgets of {self.backbone}: {shown} % of the layers"
        tasks = ", ".join(f"{count} of {task}" for task, count in self.documents.items())
        if not self.kept:
            why = f"full depth scores nothing on {tasks}" if tasks else "no documents to choose them by"
            return f"{head}, the fixed ones: {why}; --budget gives others"
        return f"{head}, {self._why()}, on fit documents ({tasks}); --budget gives others"

    def _why(self) -> str:
        """What they were chosen by: the layers that keep 98 % and a third of full depth's quality."""
        high, low = (fewest(self.kept, level) for level in (HIGH, LOW))
        if low == self.depth:
            return f"the highest below all: without one layer {RULE} keeps less than a third of full depth's quality"
        if high == self.depth:
            third = f"{RULE} keeps a third of full depth's quality with {low} of {self.depth} layers"
            return f"up to all layers but one: {third}, and 98 % with all of them only"
        keeps = f"{RULE} keeps these with {low} and {high} of {self.depth} layers"
        ends = [round(end * self.depth) for end in (self.budgets[0], self.budgets[-1])]
        around = "between" if ends == [low, high] else "around"
        return f"{around} a third and 98 % of full depth's quality: {keeps}"

    def to_json(self) -> dict[str, Any]:
        """Return it for run.json."""
        kept = {str(layers): round(share, 6) for layers, share in sorted(self.kept.items())}
        facts = {
            "backbone": self.backbone,
            "sha256": self.sha256,
            "layers": self.depth,
            "rule": RULE,
            "documents": dict(self.documents),
        }
        return {**facts, "kept": kept, "budgets": list(self.budgets)}


def initial(spec: RunSpec) -> tuple[float, ...]:
    """Return the budgets that a run has before any are chosen."""
    return spec.budgets if isinstance(spec.budgets, tuple) else FIXED


def chosen_before(out: Path) -> dict[str, tuple[float, ...]]:
    """Return the budgets that the run in a folder chose when it was last started, by the hash of the base backbone.

    The run would choose the same again, by the samples that are kept there.

    Args:
        out: the run's folder, which need not exist.
    """
    try:
        choices = json.loads((out / RUN_FILE).read_text()).get("budgets", [])
        return {one["sha256"]: tuple(map(float, one["budgets"])) for one in choices}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # no run, or not its file: nothing is known
        return {}


def to_choose(jobs: Sequence[Job], spec: RunSpec) -> list[Job]:
    """Return the jobs whose budgets are to be chosen."""
    if spec.budgets is None:
        return [job for job in jobs if not of_embedded(job.engine.backbone)]
    return list(jobs) if spec.budgets == "auto" else []


def choose(jobs: Sequence[Job], parts: TuneParts) -> list[ChosenBudgets]:
    """Choose budgets for jobs: the same on all tasks and derived models of a base backbone, which share their boards.

    Args:
        jobs: of a run, without those whose budgets are given.
        parts: decodes their tune parts, together with the other processes.

    Returns:
        A choice per base backbone, the same in every process.
    """
    groups: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[job.engine.backbone.base_sha256].append(job)
    measured = {base: _settings(group, parts) for base, group in groups.items()}
    parts.decode("budgets", [(part, list(some.values())) for several in measured.values() for part, some in several])
    kept = {base: _kept(several, parts) if parts.process == 0 else {} for base, several in measured.items()}
    known = json.loads(parts.meet(json.dumps(kept)))
    choices = []
    for base, group in groups.items():
        backbone = _anchors(group)[0].engine.backbone
        curve = {int(layers): share for layers, share in known[base].items()}
        documents = {part.job.conditions.task.name: len(part.documents) for part, _ in measured[base]}
        budgets = pick(curve, backbone.depth) if curve or backbone.depth == 1 else FIXED
        choices.append(ChosenBudgets(backbone.name, backbone.base_sha256, backbone.depth, budgets, curve, documents))
        for job in group:
            job.budgets = budgets
    return choices


def pick(kept: Mapping[int, float], depth: int) -> tuple[float, ...]:
    """Return budgets, evenly spaced from the fewest layers that keep a third of the quality to those that keep 98 %.

    Where these are fewer than five numbers of layers apart, further numbers are taken below, and then above; full
    depth is no budget, so a model of few layers has fewer budgets, and one of one layer has none.

    Args:
        kept: layers that ran → share of full depth's quality kept, `depth` among them.
        depth: layers of the model.
    """
    if depth == 1:
        return ()
    most = depth - 1
    high, low = (min(fewest(kept, level), most) for level in (HIGH, LOW))
    low = max(1, min(low, high - COUNT + 1))
    high = min(most, max(high, low + COUNT - 1))
    layers = sorted({round(low + (high - low) * i / (COUNT - 1)) for i in range(COUNT)})
    return tuple(share_of(one, depth) for one in layers)


def fewest(kept: Mapping[int, float], level: float) -> int:
    """Return the fewest layers that keep a share of full depth's quality, by the monotone curve; at most all."""
    from scipy.optimize import isotonic_regression  # loads slowly, and is needed for `--budget auto` alone

    ran = sorted(kept)
    curve = isotonic_regression([kept[layers] for layers in ran]).x
    between = np.interp(range(1, ran[-1] + 1), ran, curve)
    return int(np.argmax(between >= level - 1e-9)) + 1  # all layers keep at least as much as was measured


def share_of(layers: int, depth: int) -> float:
    """Return a number of layers as a budget: to four digits, as it is shown and may be given by --budget."""
    return round(layers / depth, 4)


def left_out(depth: int) -> list[int]:
    """Return the numbers of layers without which the quality is measured: 1, 2, 3, 4, 6, 8, 12, …, all but one."""
    steps = {base << doubled for base in (1, 3) for doubled in range(depth.bit_length())}
    return sorted({step for step in steps if step < depth} | {depth - 1} - {0})


_Settings = dict[int, Setting]
"""Number of layers → the setting that runs them."""


def _anchors(group: Sequence[Job]) -> list[Job]:
    """The jobs on the base backbone, where it runs, which quality is relative to: one per task."""
    return list({id(job.base or job): job.base or job for job in group}.values())


def _settings(group: Sequence[Job], parts: TuneParts) -> list[tuple[TunePart, _Settings]]:
    """The settings to measure, for each task that has documents to tune on."""
    rule = registry.load(RULE)
    assert issubclass(rule, Method)
    measured = []
    for job in _anchors(group):
        depth, part = job.engine.backbone.depth, parts.of(job)
        if part is None:
            continue
        settings = {depth: part.keyed(Setting("full", "full", full(), None))}
        for layers in (depth - one for one in left_out(depth)):
            budget = share_of(layers, depth)
            plan = rule().at(budget, depth)
            assert plan is not None  # it meets every budget in closed form
            settings[layers] = part.keyed(Setting(RULE, RULE, plan, budget))
        measured.append((part, settings))
    return measured


def _kept(measured: Sequence[tuple[TunePart, _Settings]], parts: TuneParts) -> dict[int, float]:
    """Layers → share of full depth's quality, above chance, the mean of the tasks where full depth has any."""
    shares: dict[int, list[float]] = defaultdict(list)
    for part, settings in measured:
        chance = mean_chance(part.documents)
        best = parts.mean(part, settings[max(settings)]) - chance
        for layers, setting in settings.items() if best > 0 else ():
            shares[layers].append((parts.mean(part, setting) - chance) / best)
    return {layers: float(np.mean(some)) for layers, some in shares.items()}
