"""Sources that documents share, such as a passage, and the clusters that they form for the statistics.

Answers to questions about one passage are correlated, so they carry less information than independent ones. A question
that a split asks twice has one source, and joins the sources of its rows. The YAML of a task names the source in its
metadata (`source: <column>`, or a function of the row); for lm-eval's tasks see `COLUMNS`. Only a hash of a source is
kept: it may be a long text, or one that must not be published.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from dlbench.errors import DlbenchError

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "CogComp/mc_taco": ("sentence",),
    "Davlan/NaijaRC": ("story",),
    "EleutherAI/drop": ("passage",),
    "EleutherAI/logiqa": ("context",),
    "HiTZ/EusReading": ("context",),
    "Rakuten/JGLUE": ("context",),
    "Rowan/hellaswag": ("source_id",),
    "TAUR-Lab/MuSR": ("narrative",),
    "TIGER-Lab/MMLU-Pro": ("category",),
    "allenai/qasper": ("title",),
    "aps/super_glue": ("passage", "paragraph", "premise"),
    "baber/logiqa2": ("text",),
    "cais/mmlu": ("subject",),
    "community-datasets/qa4mre": ("document_str",),
    "facebook/anli": ("premise",),
    "facebook/belebele": ("flores_passage",),
    "facebook/mlqa": ("context",),
    "facebook/xnli": ("premise",),
    "google-research-datasets/tydiqa": ("context",),
    "google/xquad": ("context",),
    "lighteval/siqa": ("context",),
    "lighteval/squad_v2": ("context",),
    "ltg/norquad": ("context",),
    "manu/fquad2_test": ("context",),
    "nyu-mll/glue": ("premise",),
    "projecte-aina/catalanqa": ("context",),
    "projecte-aina/xquad-ca": ("context",),
    "skt/kobest_v1": ("paragraph",),
}
"""Hub dataset of tasks of lm-eval → columns that hold the source; the first that a row has counts."""


def source(doc: Mapping[str, Any], named: Any, dataset: str | None, task: str) -> str | None:
    """The hash of a row's source; None where the row has none, or the task names none.

    Args:
        doc: the row.
        named: the `source` of the task's metadata: a column, `column.field` of a nested one, or a function of the row.
        dataset: name on the hub, for tasks whose metadata has no `source`.
        task: for messages.

    Raises:
        DlbenchError: the row has no such column.
    """
    if callable(named):
        value = named(doc)
    elif named is not None:
        value = _column(doc, str(named), task)
    else:
        value = next((doc[column] for column in COLUMNS.get(dataset or "", ()) if column in doc), None)
    if value is None or not str(value).strip():
        return None
    return hashlib.sha256(str(value).strip().encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _column(doc: Mapping[str, Any], name: str, task: str) -> Any:
    value: Any = doc
    for part in [name] if name in doc else name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            listed = ", ".join(map(str, doc))
            raise DlbenchError(f"task {task!r}: its metadata names the source {name!r}, but documents hold {listed}")
        value = value[part]
    return value


def distinct(sources: Sequence[str | None]) -> list[str | None]:
    """The sources of rows; none where all rows share one, which is what the task is about and sets no rows apart."""
    return [None] * len(sources) if len(set(sources)) == 1 else list(sources)


def merged(sources: Sequence[str | None], asked: Sequence[Hashable | None]) -> list[str | None]:
    """Merge the sources of rows that ask the same question.

    Args:
        sources: of each row, where it has one; see `distinct` for one that all share.
        asked: what each row asks; None where no other row asks the same.

    Returns:
        The source of each row; as given where no question occurs twice.
    """
    counts = Counter(one for one in asked if one is not None)
    if not counts or max(counts.values()) == 1:
        return list(sources)
    own = distinct(sources)
    leads: dict[Hashable, Hashable] = {}

    def lead(one: Hashable) -> Hashable:
        while (above := leads.setdefault(one, one)) != one:
            leads[one] = leads[above]
            one = above
        return one

    keys: list[Hashable] = []
    for place, (one, question) in enumerate(zip(own, asked, strict=True)):
        keys.append(("row", place) if one is None else ("source", one))
        if question is not None and counts[question] > 1:
            leads[lead(keys[-1])] = lead(("question", question))
    named: dict[Hashable, str] = {}
    for key, one in zip(keys, own, strict=True):
        if one is not None:
            named[lead(key)] = min(one, named.get(lead(key), one))
    for key, question in zip(keys, asked, strict=True):
        if question is not None and counts[question] > 1:
            text = hashlib.sha256(f"question {question!r}".encode()).hexdigest()[:16]
            named.setdefault(lead(key), text)
    return [named.get(lead(key)) for key in keys]


def clusters(ids: Sequence[str], sources: Mapping[str, str | None], prefix: str = "") -> tuple[str, ...] | None:
    """The cluster of every document, for `dlbench.stats`: its source, or the document itself where it has none.

    Args:
        ids: of the documents, in order.
        sources: document id → source, as far as they have one.
        prefix: distinguishes the documents of one task from those of another.

    Returns:
        None where no two documents share a source, and where all share one.
    """
    of_documents = distinct([sources.get(id_) for id_ in ids])
    known = [one for one in of_documents if one is not None]
    if len(set(known)) == len(known):
        return None
    return tuple(
        f"{prefix}document {id_}" if one is None else f"{prefix}source {one}"
        for id_, one in zip(ids, of_documents, strict=True)
    )
