"""Score the members of a class of methods on the tune part, where claims have to choose among several.

Which methods form a class is said in `dlbench.leaderboard.analysis.method_classes`, and so is what their scores are
for. A class of which a run holds one member needs none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from dlbench.evaluation.settings import Setting
from dlbench.leaderboard.analysis.method_classes import class_of
from dlbench.records.schema import TuneScore
from dlbench.running.job import Job
from dlbench.running.tune_part import TunePart, TuneParts

TuneScores = dict[tuple[int, str], TuneScore]
"""Identity of a job and content key of a setting → its score on the job's tune part."""


def score_members(jobs: Sequence[Job], parts: TuneParts) -> TuneScores:
    """Decode and score what claims choose among.

    Args:
        jobs: with their settings.
        parts: decodes their tune parts, together with the other processes.

    Returns:
        Empty in all processes but the first.
    """
    asked = [(job, part, members) for job in jobs if (members := _members(job)) and (part := parts.of(job)) is not None]
    if not asked:
        return {}
    keyed: list[tuple[TunePart, list[Setting]]] = [(p, [p.keyed(one) for one in some]) for _, p, some in asked]
    parts.decode("tune", keyed)
    scores: TuneScores = {}
    for (job, part, members), (_, settings) in zip(asked, keyed, strict=True):
        for member, setting in zip(members, settings, strict=True) if parts.process == 0 else ():
            if not parts.is_whole(part, setting):
                continue
            scores[id(job), member.key] = TuneScore(n=len(part.documents), mean=parts.mean(part, setting))
    return scores


def _members(job: Job) -> list[Setting]:
    """The rows of a job that are of a class of which other methods, or variants, run too."""
    classes: dict[str, list[Setting]] = defaultdict(list)
    for setting in job.settings:
        if setting.budget is not None and (name := class_of(setting.name)) is not None:
            classes[name].append(setting)
    several = (some for some in classes.values() if len(some) > len({(one.budget, one.seed) for one in some}))
    return [setting for some in several for setting in some]
