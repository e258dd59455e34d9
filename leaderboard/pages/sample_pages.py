"""Sample pages: what a row wrote on every document, beside full depth, with the layers that each token ran.

Documents that changed most come first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from dlbench.leaderboard import formatting
from dlbench.leaderboard.data.entries import BoardEntry
from dlbench.leaderboard.data.run_files import Runs
from dlbench.leaderboard.data.views import BoardView
from dlbench.leaderboard.pages.environment import environment
from dlbench.leaderboard.pages.escaping import shorten
from dlbench.leaderboard.pages.sample_document import SampleDocument, prompt_and_references, sample_document
from dlbench.leaderboard.pages.site_context import File, Site, rows_file
from dlbench.records.schema import Asked

LARGEST = 200_000
"""Bytes of a page."""
_ROOM = 24_000  # of these for the head, the strip and the foot
MOST = 500
"""Documents of a row that are shown; the others are in the run's files."""
# It writes two texts per document, one for each half of the references, and its scores are no text's.
_NO_TEXT = frozenset({"oracle_cross"})


@dataclass(slots=True)
class SampleIndex:
    """On which pages the samples of one entry are.

    Attributes:
        file: path of the first page, without the ending.
        page_of: document id → number of the page, from 0.
    """

    file: str
    page_of: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _SameForAllRows:
    """What all rows of a task are shown with.

    Attributes:
        full: full depth's samples by document id.
        full_scores: likewise its scores.
        asked: prompt and references by document id, rendered.
    """

    full: Mapping[str, dict[str, Any]]
    full_scores: Mapping[str, float]
    asked: Mapping[str, Markup]


class _Bar(NamedTuple):
    """A document in the strip above the samples; its height, from 1 to 8, grows with the change of its score."""

    anchor: str
    verdict: str
    height: int
    page: int


def first_page(view: BoardView, entry: BoardEntry, runs: Runs) -> str | None:
    """Return the path of an entry's first page, without the ending; None where its samples are not published."""
    published = not view.suite and _key(entry) in runs.samples and entry.method not in _NO_TEXT
    return f"samples/{view.slug}/{entry.id}" if published else None


def entry_files(
    site: Site, view: BoardView, runs: Runs, asked: Mapping[str, Asked]
) -> Iterator[tuple[BoardEntry, SampleIndex, list[File]]]:
    """Yield, for every entry of a view with published samples, on which pages they stand, and these pages.

    Args:
        site: what all pages have in common.
        view: of one task; of several there are no pages.
        runs: the view's.
        asked: the task's prompts and references, by document id.
    """
    entries = [entry for entry in view.entries if first_page(view, entry, runs)]
    if not entries:
        return
    full = next((entry for entry in entries if entry.role == "full"), None)
    full_scores = runs.scores.get(_key(full), {}) if full else {}
    orders = {entry.id: _order(_changes(runs.scores[_key(entry)], full_scores)) for entry in entries}
    wanted = {id_ for order in orders.values() for id_ in order}
    same = _SameForAllRows(
        full=_read(runs.samples[_key(full)], wanted) if full else {},
        full_scores=full_scores,
        asked={id_: prompt_and_references(asked[id_]) for id_ in wanted if id_ in asked},
    )
    for entry in entries:
        yield _entry_pages(site, view, entry, orders[entry.id], runs, same)


def _key(entry: BoardEntry | None) -> str:
    return "" if entry is None else entry.first.record.key


def _changes(scores: Mapping[str, float], full_scores: Mapping[str, float]) -> dict[str, float]:
    """Return, by document id, how far a score is from full depth's; 0 where full depth has none."""
    return {id_: score - full_scores.get(id_, score) for id_, score in scores.items()}


def _order(changes: Mapping[str, float]) -> list[str]:
    """Return the documents that are shown: what lost or won most first, and of two alike the loss."""
    return sorted(changes, key=lambda id_: (-abs(changes[id_]), changes[id_], id_))[:MOST]


def _read(path: Path, wanted: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return samples by document id, as JSON: every line of the file was checked when the run was read."""
    ids = set(wanted)
    samples: dict[str, dict[str, Any]] = {}
    with path.open("rb") as handle:
        for line in handle:
            sample = json.loads(line)
            if sample["id"] in ids:
                sample["output"], sample["left"] = shorten(sample["output"])
                samples[sample["id"]] = sample
    return samples


def _entry_pages(
    site: Site, view: BoardView, entry: BoardEntry, order: Sequence[str], runs: Runs, same: _SameForAllRows
) -> tuple[BoardEntry, SampleIndex, list[File]]:
    changes = _changes(runs.scores[_key(entry)], same.full_scores)
    largest = max((abs(changes[id_]) for id_ in order), default=0.0) or 1.0
    index = SampleIndex(first_page(view, entry, runs) or "")
    render = environment().get_template("document.html.j2").module.article  # type: ignore[attr-defined]  # a macro
    pages: list[list[str]] = [[]]
    bars: list[_Bar] = []
    size = 0
    for document in _documents(entry, order, _read(runs.samples[_key(entry)], order), same):
        article = str(render(document, view.metric)).rstrip("\n")
        size += len(article.encode())
        if pages[-1] and size > LARGEST - _ROOM:
            pages.append([])
            size = len(article.encode())
        pages[-1].append(article)
        index.page_of[document.id] = len(pages) - 1
        height = 1 + round(7 * abs(changes[document.id]) / largest)
        bars.append(_Bar(document.anchor, document.verdict, height, len(pages) - 1))
    context = {
        "root": "../../",
        "here": "samples",
        "records": site.records,
        "view": view,
        "entry": entry,
        "back": f"../../{rows_file(site, view)}",
        "method_page": site.pages[entry.method],
        "tally": {one: sum(bar.verdict == one for bar in bars) for one in ("worse", "better", "same", "equal")},
        "left_out": len(changes) - len(order),
        "siblings": _siblings(view, entry, runs),
    }
    return entry, index, list(_files(index, entry, pages, bars, context))


def _documents(
    entry: BoardEntry, order: Iterable[str], samples: Mapping[str, Mapping[str, Any]], same: _SameForAllRows
) -> Iterator[SampleDocument]:
    """Yield the documents of an entry in order, each with an anchor that no other has."""
    depth = entry.first.record.backbone.layers
    taken: Counter[str] = Counter()
    for id_ in order:
        stem = f"d-{formatting.slug(id_)}"
        taken[stem] += 1
        yield sample_document(
            samples[id_],
            None if entry.role == "full" else same.full.get(id_),
            asked=same.asked.get(id_, Markup()),
            anchor=stem if taken[stem] == 1 else f"{stem}-{taken[stem]}",
            depth=depth,
            full_score=same.full_scores.get(id_),
        )


def _siblings(view: BoardView, entry: BoardEntry, runs: Runs) -> list[tuple[str, str, bool]]:
    """Return the pages of the same method at all budgets: address, name, whether it is this one."""
    return [
        (f"{one.id}.html", f"{100 * one.budget:.4g} %", one.id == entry.id)
        for one in view.entries
        if one.label == entry.label and one.budget is not None and _key(one) in runs.samples
    ]


def _files(
    index: SampleIndex,
    entry: BoardEntry,
    pages: Sequence[Sequence[str]],
    bars: Sequence[_Bar],
    context: Mapping[str, Any],
) -> Iterator[File]:
    template = environment().get_template("samples.html.j2")
    for number, articles in enumerate(pages):
        on_page = {
            "articles": [Markup(article) for article in articles],  # rendered and escaped by document.html.j2
            "marks": [(bar.anchor, bar.verdict, bar.height, _address(entry.id, bar.page, number)) for bar in bars],
            "links": [(page + 1, _address(entry.id, page), page == number) for page in range(len(pages))],
        }
        yield _file(index.file, number), template.render({**context, **on_page})


def _file(stem: str, number: int) -> str:
    return f"{stem}.html" if number == 0 else f"{stem}-{number + 1}.html"


def _address(stem: str, page: int, here: int | None = None) -> str:
    """Return the address of a page as seen from another: empty for the page itself."""
    return "" if page == here else _file(stem, page)
