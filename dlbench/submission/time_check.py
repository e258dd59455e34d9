"""Time rows of a submission again beside full depth, where this machine is of the kind that the claim names.

Milliseconds belong to one machine. What is compared is the ratio to full depth, which both runs measure side by side.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dlbench.engine import Engine, Request
from dlbench.evaluation.resources import BUSY
from dlbench.evaluation.settings import Setting
from dlbench.evaluation.timing import TOKENS, TimedSetting, attempt
from dlbench.models.backbone import Backbone
from dlbench.prompting.batching import typical
from dlbench.prompting.tokenize import tokenise
from dlbench.records.schema import Hardware, Record, Timing
from dlbench.submission.badge import TimeCheck
from dlbench.submission.contents import Submission, TrackDocuments
from dlbench.system.hardware import hardware, torch_threads

TOLERANCE = 0.25
"""Most by which the claimed ratio and the measured one may differ, relative to the smaller."""
FAR = 2.0
"""A claimed ratio of more than so many times the measured one is not reproduced."""


def judged(claim: Timing, again: Timing) -> TimeCheck:
    """Hold a claimed ratio to full depth against a measured one."""
    assert claim.speedup is not None and again.speedup is not None
    busy, finding = again.others_busy or 0.0, ""
    if busy > BUSY:
        finding = f"not judged: other programs used {busy:.0%} of the processors"
    elif again.kernels != claim.kernels:
        finding = f"not judged: {claim.kernels} layers are claimed, {again.kernels} ones ran"
    unjudged, too_fast = bool(finding), claim.speedup / again.speedup
    if not unjudged and max(too_fast, 1 / too_fast) > 1 + TOLERANCE:
        finding = "faster than it is here" if too_fast > 1 else "slower than it is here"
    return TimeCheck(
        batch_size=claim.batch_size,
        claimed=claim.speedup,
        measured=again.speedup,
        finding=finding,
        far_off=not unjudged and too_fast > FAR,
    )


def other_machine(claim: Timing, device: str) -> str:
    """Say why this machine is not of the kind that was timed; empty where it is.

    Args:
        claim: a time of the submission.
        device: torch's name of the device here.
    """
    there, here = claim.hardware, Hardware(**hardware(device))
    if there is None:
        return "the submission does not name the machine that was timed"
    if there.gpu != here.gpu or (here.gpu is None and there.processor != here.processor):
        return f"they are of another machine ({there.label}; this is {here.label})"
    if there.gpu is None and claim.threads > (os.cpu_count() or 1):
        return f"they were taken with {claim.threads} threads, more than this machine has processors"
    return ""


@dataclass
class TimeChecks:
    """Times the rows of a valid submission again.

    Attributes:
        submission: without faults.
        engine: the engine of a row's backbone.
        setting: the setting of a row.
        note: prints a line for people.
    """

    submission: Submission
    engine: Callable[[Record], Engine]
    setting: Callable[[Record, Engine], Setting]
    note: Callable[[str], None]
    _engines: dict[str, Engine] = field(default_factory=dict)

    def of_track(self, track: str, own: TrackDocuments) -> dict[str, tuple[TimeCheck, ...]]:
        """Time the rows of a track that have times; return what became of each, by key: nothing on another machine.

        Args:
            track: its name.
            own: its task and documents.
        """
        full = self.submission.full(track)
        rows = [r for r in self.submission.records if r.track == track]
        claims = {(t.key, t.batch_size): t for t in self.submission.timings if t.speedup is not None}
        batches = sorted({batch for key, batch in claims if full is not None and key == full.key})
        found: dict[str, tuple[TimeCheck, ...]] = {}
        if full is None or not batches:
            return found
        first = claims[full.key, batches[0]]
        if reason := other_machine(first, str(self.engine(full).backbone.device)):
            self.note(f"{own.task.name}: times are not compared: {reason}")
            return found
        rows = [full, *(r for r in rows if r.key != full.key)]
        items = self._items(rows, own, max(batches), first.kernels)
        for batch in batches:
            timed = [item for item in items if (item.facts["key"], batch) in claims]
            with torch_threads(first.threads if first.device == "cpu" else None):
                times = attempt(timed, batch, routed=full.run.prompt == "routed", task=own.task.name)
            if times is None:
                self.note(f"{own.task.name}: no times at batch {batch}, which does not fit the memory of this device")
            for again in (times or [])[1:]:
                found[again.key] = (*found.get(again.key, ()), judged(claims[again.key, batch], again))
        return found

    def _items(self, rows: Sequence[Record], own: TrackDocuments, size: int, kernels: str) -> list[TimedSetting]:
        """The rows as the timing of a run has them; the first is full depth of the base."""
        items = []
        asked: dict[str, list[Request]] = {}
        for row in rows:
            metered = self.engine(row)
            setting = self.setting(row, metered)
            engine = self._unmetered(metered.backbone, kernels)
            if metered.backbone.id not in asked:
                asked[metered.backbone.id] = typical(tokenise(metered, own.documents), size)
            prompts = asked[metered.backbone.id]
            facts = {
                "key": row.key,
                "name": row.method.name,
                "budget": row.run.budget,
                "seed": row.run.seed,
                "kv": row.run.kv,
                "forwards": 0.0,
            }
            method = None if row.method.name == "full" else setting.method
            timed = [dataclasses.replace(r, limit=min(r.limit, TOKENS)) for r in prompts]
            items.append(TimedSetting(facts, engine, timed, method, [r.limit for r in prompts]))
        return items

    def _unmetered(self, backbone: Backbone, kernels: str) -> Engine:
        """An engine that counts no FLOPs, as times are taken; it runs stock layers where these are claimed."""
        if backbone.id not in self._engines:
            chosen: Literal["auto", "stock"] = "stock" if kernels == "stock" else "auto"
            self._engines[backbone.id] = Engine(backbone, metered=False, kernels=chosen)
        return self._engines[backbone.id]
