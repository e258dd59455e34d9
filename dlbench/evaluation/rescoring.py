"""Score again what was on disk when a run began: samples keep outputs, and the task may have changed since.

A content key names what was decoded. Its samples stay good when a filter, `process_results` or a helper of a task is
edited; their scores do not. So they are always scored by the task as it is now, which takes a fraction of a millisecond
each: no hash of code could tell as surely that nothing has changed. A score has changed if two scorings agree that it
has: some tasks score by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dlbench.data.task import Document, Task
from dlbench.records.run_folder import Store
from dlbench.records.schema import Sample


def rescore(
    task: Task,
    documents: Sequence[Document],
    store: Store,
    keys: Iterable[str],
    say: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Score samples of earlier runs, and write those whose scores are others now.

    Args:
        task: scores.
        documents: of the run, all of them decoded.
        store: has the samples, merged.
        keys: of the task's settings on one backbone; many of them share outputs.
        say: told how many keys are done, of how many.

    Returns:
        How many samples have other scores now.
    """
    known: dict[object, list[tuple[float, dict[str, float]]]] = {}
    changed, several = 0, list(dict.fromkeys(keys))
    for number, key in enumerate(several):
        there, samples = store.from_earlier_run(key), store.samples(key)
        stale: list[Sample] = []
        for document in documents:
            if document.id in there:
                sample = samples[document.id]
                content = (document.id, sample.answers or sample.output)
                found = known.setdefault(content, [])
                while (sample.score, sample.scores) not in found and len(found) < 2:
                    found.append(_score(task, document, sample))
                if (sample.score, sample.scores) not in found:
                    score, scores = found[0]
                    stale.append(sample.model_copy(update={"score": score, "scores": scores}))
        if stale:
            store.replace(key, stale)
            changed += len(stale)
        say(number + 1, len(several))
    return changed


def _score(task: Task, document: Document, sample: Sample) -> tuple[float, dict[str, float]]:
    """The primary metric, and the others."""
    found = task.weigh(document, sample.answers) if task.is_loglikelihood else task.score(document, sample.output)
    scores = dict(found)
    return scores.pop(task.metric), scores
