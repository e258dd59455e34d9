"""Score the samples of earlier runs again, since the task's scoring may have changed.

A content key identifies what was decoded. When a filter, `process_results` or a helper of a task is edited, outputs
stay valid but scores do not. So stored outputs are always scored by the task as it is now, which takes a fraction of a
millisecond each and is more reliable than any hash of code. A score counts as changed if two scorings agree on that:
some tasks score at random.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from dlbench.data.document import Document
from dlbench.data.task import Task
from dlbench.records.run_folder import Store
from dlbench.records.schema import Sample


def rescore(
    task: Task,
    documents: Sequence[Document],
    store: Store,
    keys: Iterable[str],
    say: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Score samples of earlier runs, and write those whose scores differ now.

    Args:
        task: scores the outputs.
        documents: of the run, all of them decoded.
        store: holds the merged samples.
        keys: content keys of the task's settings on one backbone; many of them share outputs.
        say: told the number of keys that are done, and of all keys.

    Returns:
        The number of samples whose scores differ now.
    """
    known: dict[tuple[str, bytes], list[tuple[float, dict[str, float]]]] = {}
    changed, several = 0, list(dict.fromkeys(keys))
    for number, key in enumerate(several):
        earlier, samples = store.from_earlier_run(key), store.samples(key)
        stale: list[Sample] = []
        for document in documents:
            if document.id in earlier:
                sample = samples[document.id]
                scorings = known.setdefault((document.id, _hash(sample)), [])
                while (sample.score, sample.scores) not in scorings and len(scorings) < 2:
                    scorings.append(_score(task, document, sample))
                if (sample.score, sample.scores) not in scorings:
                    score, scores = scorings[0]
                    stale.append(sample.model_copy(update={"score": score, "scores": scores}))
        if stale:
            store.replace(key, stale)
            changed += len(stale)
        say(number + 1, len(several))
    return changed


def _hash(sample: Sample) -> bytes:
    """A hash of what is scored: the outputs of all keys together may not fit the memory."""
    return hashlib.sha256(repr(sample.answers or sample.output).encode()).digest()


def _score(task: Task, document: Document, sample: Sample) -> tuple[float, dict[str, float]]:
    """Scores under the primary metric, and under the others."""
    metrics = task.weigh(document, sample.answers) if task.is_loglikelihood else task.score(document, sample.output)
    scores = dict(metrics)
    return scores.pop(task.metric), scores
