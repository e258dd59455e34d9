"""Check before a run that a task's metric can read the task's own references: a wrong score looks like any other.

References are scored as if a model had generated them. A perfect answer must get the full score; a metric with partial
scores must recognise the letters of a text (rouge-score's default tokenizer knows a to z only), and more than one word
in a sentence (sacrebleu's default splits at spaces). Tasks may expect another form than their references have, so this
only warns. References that are blank, or the same for all documents, are placeholders where the scoring takes its
references from elsewhere, as in lm-eval's drop, ifeval and truthfulqa_gen; they are not checked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dlbench.data.document import Document
from dlbench.data.scoring.words import letters, unspaced
from dlbench.data.task import Task
from dlbench.terminal.quiet import quiet_data_libraries

DOCUMENTS = 50
"""Most documents that are checked, spread over the task."""
_GRADED = ("rouge", "bleu", "f1", "chrf", "meteor")
"""Parts of the names of metrics that give partial scores."""
_FEW = 8
"""Number of letters below which a text may be a single word."""


@dataclass(frozen=True)
class _Marks:
    """Scores of one reference as the answer to its document."""

    own: float
    blind: bool
    """Whether it scores as high without the letters that it mostly consists of."""
    coarse: bool
    """Whether one missing character takes nearly all of the score."""


def complaints(task: Task, documents: Sequence[Document]) -> tuple[str, ...]:
    """Return what is wrong with a task's metric, a line each; empty where nothing is, or no text is scored.

    Args:
        task: scores the references.
        documents: of the task.
    """
    if task.is_loglikelihood:
        return ()
    checked = list(_check(task, documents))
    full = 100 if any(marks.own > 1 for marks in checked) else 1  # sacrebleu's scale, of lm-eval's own metrics
    metric, lines = task.metric.partition("@")[0], []
    for count, said in (
        (
            sum(marks.own < full / 2 for marks in checked),
            f"get less than half of the marks as answers under {metric}: it cannot read them, or wants another form",
        ),
        (
            sum(m.blind for m in checked),
            f"have letters that {metric} does not see: it compares the little that is left",
        ),
        (sum(m.coarse for m in checked), f"have sentences that {metric} takes for one word: one slip costs all marks"),
    ):
        if count:
            lines.append(f"{count} of {len(checked)} references looked at {said}")
    return tuple(lines)


def _check(task: Task, documents: Sequence[Document]) -> Iterator[_Marks]:
    if len(documents) > 1 and len({document.references for document in documents}) == 1:
        return
    with quiet_data_libraries():
        for document in documents[:: -(-len(documents) // DOCUMENTS) or 1]:
            if document.references and document.references[0].strip():
                with contextlib.suppress(Exception):  # a task may fail on a bare reference
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
