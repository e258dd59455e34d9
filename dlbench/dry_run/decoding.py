"""What decoding, scoring and timing will take: steps and texts of a probe, priced for every setting and wave."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any

from dlbench.dry_run.few_documents import DocumentUse, FewDocuments
from dlbench.dry_run.rows import PlannedRow
from dlbench.engine import Engine
from dlbench.evaluation import timing
from dlbench.fit.references import TUNE_DOCUMENTS
from dlbench.forecast import needs
from dlbench.forecast.decoding import ROWS, StepCost, StepCosts, StepTimer, wave_seconds
from dlbench.forecast.speed import Clock
from dlbench.leaderboard.analysis.method_classes import class_of
from dlbench.records.run_folder import Store
from dlbench.running.budgets import left_out
from dlbench.running.job import Job
from dlbench.running.tune_part import DOCUMENTS


@dataclass(frozen=True)
class JobPlan:
    """A task on a backbone: its settings, and the samples that are still to be decoded.

    Attributes:
        missing: for each batch, the number of documents that have no sample yet, by the place of the setting.
    """

    job: Job
    rows: Sequence[PlannedRow]
    missing: Sequence[Sequence[int]]
    few: FewDocuments

    @classmethod
    def of(cls, job: Job, rows: Sequence[PlannedRow], store: Store, few: FewDocuments) -> JobPlan:
        """Look which samples are there.

        Args:
            job: of the run.
            rows: its settings.
            store: the run's folder, which need not exist.
            few: decodings of a few documents.
        """
        known = [store.ids(row.setting.key) if row.setting is not None else frozenset() for row in rows]
        missing = [[sum(p.document.id not in there for p in batch) for there in known] for batch in job.batches]
        return cls(job, rows, missing, few)

    @property
    def samples(self) -> int:
        """Samples of all settings."""
        return len(self.rows) * len(self.job.documents)

    @cached_property
    def left(self) -> int:
        """Samples that are still to be decoded."""
        return sum(map(sum, self.missing))

    def at(self, row: PlannedRow) -> DocumentUse:
        """What a document does under a setting."""
        return self.few.at(row.share)

    def documents(self, row: PlannedRow) -> int:
        """Documents that a setting has no sample of yet."""
        place = self.rows.index(row)
        return sum(batch[place] for batch in self.missing)

    def sample_bytes(self, row: PlannedRow) -> float:
        """Bytes of the samples of a setting that are still to be written."""
        return self.at(row).size * self.documents(row)

    def shown_bytes(self, row: PlannedRow) -> float:
        """Bytes of all samples of a setting."""
        return self.at(row).size * len(self.job.documents)

    def wave_bytes(self, processes: int) -> int:
        """Memory of the largest wave."""
        job, most = self.job, 0
        for batch in job.batches if not job.conditions.task.is_loglikelihood else ():
            prompt, new = max(len(p.request.ids) for p in batch), max(p.request.limit for p in batch)
            rows = needs.chosen_rows(job.engine.backbone, prompt, new, len(batch), job.slots, processes)
            most = max(most, needs.wave_bytes(job.engine.backbone, prompt, new, rows, job.slots))
        return most

    def trace_bytes(self) -> int:
        """Memory of the states that a knob is tuned on: of every layer, for the references' tokens."""
        backbone = self.job.engine.backbone
        tokens = TUNE_DOCUMENTS * self.few.by_share[1.0].lengths.longest
        return int((backbone.depth + 1) * tokens * backbone.width * next(backbone.model.parameters()).element_size())

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        job, prompts = self.job, [len(p.request.ids) for batch in self.job.batches for p in batch]
        backbone = job.engine.backbone
        return {
            "task": job.conditions.task.name,
            "model": backbone.name,
            "layers": backbone.depth,
            "parameters": sum(one.numel() for one in backbone.model.parameters()),
            "dtype": backbone.dtype,
            "budgets": list(job.budgets),
            "documents": len(job.documents),
            "of": job.conditions.of,
            "prompt_tokens": [min(prompts), max(prompts)],
            "max_new_tokens": job.conditions.task.max_new_tokens,
            "rows": sum(row.shown for row in self.rows),
            "settings": len(self.rows),
            "samples": self.samples,
            "reused_samples": self.samples - self.left,
        }


class DecodingForecast:
    """Prices what the jobs decode.

    Args:
        plans: of all jobs.
        processes: that share the batches.
        clock: that steps are timed by.
        routed: whether prompts run the method's layers only.
    """

    def __init__(self, plans: Sequence[JobPlan], processes: int, clock: Clock, *, routed: bool) -> None:
        self._plans, self._processes, self._clock, self._routed = plans, processes, clock, routed
        self._costs: dict[tuple[str, str], StepCosts] = {}
        """Of a step, by backbone and by what the speed of a setting depends on."""
        self._prompt_token: dict[str, float] = {}
        self._uncounted: dict[str, float] = {}
        """Seconds of a step in which no FLOPs are counted, as times are taken, ÷ those of one in which they are."""
        written = [plan for plan in plans if not plan.job.conditions.task.is_loglikelihood]
        for plan in {plan.job.engine.backbone.sha256: plan for plan in reversed(written)}.values():
            self._measure(plan)

    def _measure(self, plan: JobPlan) -> None:
        """Time a few steps on a backbone of every kind of row, at its lowest and its highest budget."""
        job, depth = plan.job, plan.job.engine.backbone.depth
        reads = frozenset[int]().union(*(row.method.reads(depth) for row in plan.rows if not self._routed))
        requests = [prompted.request for batch in job.batches for prompted in batch]
        timer = StepTimer(job.engine, requests, reads, self._clock, routed=self._routed)
        name = job.engine.backbone.sha256
        self._prompt_token[name] = timer.prompt_token
        plain = Engine(job.engine.backbone, metered=False, kernels="stock" if job.engine.kernels == "stock" else "auto")
        uncounted, counted = (
            one.of(None)[0] for one in (StepTimer(plain, requests, (), self._clock, routed=False), timer)
        )
        self._uncounted[name] = min(1.0, uncounted.step(ROWS) / counted.step(ROWS))
        kinds, by_share = defaultdict[str, list[PlannedRow]](list), attrgetter("share")
        for row in plan.rows:
            if row.shown:
                kinds[row.kind].append(row)
        for kind, rows in kinds.items():
            ends = {one.share: one for one in (min(rows, key=by_share), max(rows, key=by_share))}
            try:
                costs = {share: self._timed(timer, plan, row) for share, row in ends.items()}
            except Exception:  # of a method that has learnt from zeros, or fails: the run will say why
                continue
            self._costs[name, kind] = StepCosts(costs)

    def _timed(self, timer: StepTimer, plan: JobPlan, row: PlannedRow) -> StepCost:
        method = None if row.name == "full" else row.method
        cost, share = timer.of(method, row.seed, plan.job.conditions.kv(row.method))
        # a knob that is not tuned yet does not meet its budget
        return cost if row.setting is not None else cost.scaled(row.share / max(share, 1e-3))

    def _cost(self, plan: JobPlan, row: PlannedRow) -> StepCost:
        name = plan.job.engine.backbone.sha256
        if row.shown and (costs := self._costs.get((name, row.kind))) is not None:
            return costs.at(row.share)
        return self._costs[name, plan.rows[0].kind].at(1.0).scaled(row.share)

    def seconds(self) -> float:
        """Of decoding and scoring all that is missing: processes take batches as they are free for them."""
        batches = [
            self._batch(plan, index, missing) for plan in self._plans for index, missing in enumerate(plan.missing)
        ]
        return max(sum(batches) / self._processes, *batches)

    def _batch(self, plan: JobPlan, index: int, missing: Sequence[int]) -> float:
        """Seconds of a batch: prompts are read once, and equal static settings decoded once."""
        job, depth = plan.job, plan.job.engine.backbone.depth
        if job.conditions.task.is_loglikelihood:
            return sum(count * plan.at(row).seconds for count, row in zip(missing, plan.rows, strict=True))
        prompts = [p.request for p in job.batches[index]]
        # a method's prompts may not share what they begin with
        read = sum(len(one.ids) for one in prompts) if self._routed else job.engine.tokens_read(prompts)
        reading = self._prompt_token[job.engine.backbone.sha256] * read
        seconds = 0.0 if self._routed else reading * any(missing)
        decoded: set[object] = set()
        for count, row in zip(missing, plan.rows, strict=True):
            same = None if row.setting is None else row.setting.output_key(depth)
            if not count or same in decoded:
                continue
            decoded |= {same} - {None}
            seconds += wave_seconds(self._cost(plan, row), plan.at(row).lengths, len(job.batches[index]), job.slots)
            seconds += row.share * reading if self._routed else 0.0
        return seconds

    def tokens(self) -> float:
        """Prompt and new tokens of all that is missing."""
        return sum(plan.documents(row) * plan.at(row).lengths.mean for plan in self._plans for row in plan.rows) + sum(
            len(p.request.ids) for plan in self._plans for p in _read(plan)
        )

    def flops(self) -> float:
        """FLOPs of all that is missing."""
        rows = sum(plan.documents(row) * plan.at(row).flops for plan in self._plans for row in plan.rows)
        return rows + sum(plan.few.prompt_flops * len(_read(plan)) for plan in self._plans)

    def _small(self, plan: JobPlan, rows: Sequence[PlannedRow]) -> float:
        """Seconds of some settings on the documents of the tune part."""
        if plan.job.conditions.task.is_loglikelihood:
            return sum(DOCUMENTS * plan.at(row).seconds for row in rows) / self._processes
        count = -(-DOCUMENTS // self._processes)
        return sum(wave_seconds(self._cost(plan, row), plan.at(row).lengths, count, plan.job.slots) for row in rows)

    def classes(self) -> float:
        """Seconds of scoring the members of classes of methods, where there are several."""
        total = 0.0
        for plan in self._plans:
            several: dict[str, list[PlannedRow]] = defaultdict(list)
            for row in plan.rows:
                if row.shown and row.budget is not None and (name := class_of(row.name)) is not None:
                    several[name].append(row)
            for some in several.values():
                if len(some) > len({(row.budget, row.seed) for row in some}):
                    total += self._small(plan, some)
        return total

    def choosing(self, backbones: Collection[str]) -> float:
        """Seconds of choosing the budgets of backbones: static settings of every number of layers."""
        total = 0.0
        for plan in self._plans:
            backbone, first = plan.job.engine.backbone, plan.rows[0]
            if backbone.name in backbones and plan.job.base is None:
                layers = [backbone.depth, *(backbone.depth - one for one in left_out(backbone.depth))]
                shares = [one / backbone.depth for one in layers]
                rows = [PlannedRow("", first.method, None, 0, share, None, shown=False) for share in shares]
                total += self._small(plan, rows)
        return total

    def timing(self) -> float:
        """Seconds of timing every row."""
        total = 0.0
        for plan in self._plans:
            if plan.job.conditions.task.is_loglikelihood:
                continue
            base = next((one for one in self._plans if one.job is plan.job.base), plan)
            shown = [row for row in plan.rows if row.shown]
            steps = min(plan.few.by_share[1.0].lengths.longest, timing.TOKENS) - 1
            steps *= self._uncounted[plan.job.engine.backbone.sha256]
            for batch in timing.BATCHES:
                full = self._cost(base, base.rows[0]).step(batch)
                rows = [self._cost(plan, row).step(batch) for row in shown]
                warm = 1 + plan.job.engine.warm_ups * len(rows)
                total += steps * (timing.ROUNDS * (sum(rows) + full * -(-len(rows) // timing.FULL_EVERY)) + warm * full)
        return total


def _read(plan: JobPlan) -> list[Any]:
    """The prompts that are read: those of batches of which something is missing."""
    return [p for batch, missing in zip(plan.job.batches, plan.missing, strict=True) for p in batch if any(missing)]
