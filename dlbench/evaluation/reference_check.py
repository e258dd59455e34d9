"""Whether a task's metric can read its own references: told before a run, since a wrong score looks like any other.

References are scored as if a model had written them. A perfect answer must get full marks; a metric that grades must
see the letters of a text (rouge-score's default tokenizer knows a to z only), and more in a sentence than one word
(sacrebleu's default parts by spaces). Tasks may want answers in another form than their references have, so nothing is
refused. What is blank, or the same for all documents, stands in for references that the scoring has from elsewhere, as
in lm-eval's drop, ifeval and truthfulqa_gen: of these nothing is told.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dlbench.data.scoring.words import letters, unspaced
from dlbench.data.task import Document, Task
from dlbench.terminal.quiet import quiet_data_libraries

DOCUMENTS = 50
"""Most documents that are looked at, all over the task."""
_GRADED = ("rouge", "bleu", "f1", "chrf", "meteor")
"""In the names of metrics that give a part of the marks for a part of the answer."""
_FEW = 8
"""Letters below which a text may well be one word."""


@dataclass(frozen=True)
class _Marks:
    """What one reference gets as an answer to its document."""

    own: float
    blind: bool
    """Whether it gets as much without the letters that most of it is made of."""
    coarse: bool
    """Whether it loses nearly all with one character of its sentences."""


def complaints(task: Task, documents: Sequence[Document]) -> tuple[str, ...]:
    """What is wrong with the metric of a task, a line each; none where it reads the references, or nothing is written.

    Args:
        task: scores.
        documents: of the task.
    """
    if task.is_loglikelihood:
        return ()
    looked = list(_look(task, documents))
    full = 100 if any(marks.own > 1 for marks in looked) else 1  # sacrebleu's scale, of lm-eval's own metrics
    metric, found = task.metric.partition("@")[0], []
    for count, said in (
        (
            sum(marks.own < full / 2 for marks in looked),
            f"get less than half of the marks as answers under {metric}: it cannot read them, or wants another form",
        ),
        (sum(m.blind for m in looked), f"have letters that {metric} does not see: it compares the little that is left"),
        (sum(m.coarse for m in looked), f"have sentences that {metric} takes for one word: one slip costs all marks"),
    ):
        if count:
            found.append(f"{count} of {len(looked)} references looked at {said}")
    return tuple(found)


def _look(task: Task, documents: Sequence[Document]) -> Iterator[_Marks]:
    if len(documents) > 1 and len({document.references for document in documents}) == 1:
        return
    with quiet_data_libraries():
        for document in documents[:: -(-len(documents) // DOCUMENTS) or 1]:
            if document.references and document.references[0].strip():
                with contextlib.suppress(Exception):  # what a task makes of a bare reference is its own affair
                    yield _read(task, document, document.references[0])


def _read(task: Task, document: Document, reference: str) -> _Marks:
    own, written = task.judge(document, reference), letters(reference)
    if own <= 0 or not any(name in task.metric.lower() for name in _GRADED):
        return _Marks(own, blind=False, coarse=False)
    plain = "".join(c if c.isascii() else " " for c in reference)
    middle = len(reference) // 2
    slip = reference[:middle] + reference[middle + 1 :]
    return _Marks(
        own,
        blind=2 * letters(plain) < written and task.judge(document, plain) >= own,
        coarse=written >= _FEW and bool(unspaced([reference])) and task.judge(document, slip) < own / 10,
    )
