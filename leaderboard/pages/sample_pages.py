"""Sample pages: what a row wrote on every document, beside full depth, with what each token ran.

Documents that changed most come first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dlbench.leaderboard import formatting
from dlbench.leaderboard.charts.token_map import TokenMap, tints, token_map
from dlbench.leaderboard.data.run_files import Runs
from dlbench.leaderboard.data.views import BoardEntry, BoardView
from dlbench.leaderboard.pages.environment import environment
from dlbench.leaderboard.pages.escaping import html, shorten
from dlbench.leaderboard.pages.site_context import File, Site, file_of
from dlbench.leaderboard.pages.word_diff import Parts, word_diff
from dlbench.records.schema import Asked

LARGEST = 200_000
"""Bytes of a page."""
_ROOM = 24_000  # of these for the head, the strip and the foot
MOST = 500
"""Documents of a row that get a place; the others are in the run's files."""
# It writes two texts per document, one for each half of the references, and its scores are no text's.
_NO_TEXT = frozenset({"oracle_cross"})
REFERENCES = 3
"""References that are shown; the others are counted."""


@dataclass(slots=True)
class Shelf:
    """Where the samples of one entry stand.

    Attributes:
        file: path of its first page, without the ending.
        shard: per document id, which of its pages.
        anchor: per document id, where on the page.
    """

    file: str
    shard: dict[str, int] = field(default_factory=dict)
    anchor: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShownText:
    """A shortened text, and how many letters of it are left out."""

    html: Markup
    left: int


@dataclass(frozen=True, slots=True)
class ShownDocument:
    """One sample as a page shows it."""

    id: str
    anchor: str
    verdict: str
    """`worse`, `better`, `same` (score, another text) or `equal`."""
    full_score: float | None
    score: float
    asked: Markup
    full: ShownText | None
    output: ShownText
    map: TokenMap | None
    tinted: Markup | None
    pieces: str
    facts: str


def first_page(view: BoardView, entry: BoardEntry, runs: Runs) -> str | None:
    """Return the path of an entry's first page, without the ending; None where its samples are not published."""
    there = not view.suite and _key(entry) in runs.samples and entry.method not in _NO_TEXT
    return f"samples/{view.slug}/{entry.id}" if there else None


def entry_files(
    site: Site, view: BoardView, runs: Runs, asked: Mapping[str, Asked]
) -> Iterator[tuple[BoardEntry, Shelf, list[File]]]:
    """Yield, for every entry of a view with published samples, where they stand and the pages that hold them.

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
    base_scores = runs.scores.get(_key(full), {}) if full else {}
    chosen = {entry.id: _order(runs.scores[_key(entry)], base_scores) for entry in entries}
    wanted = {id_ for order in chosen.values() for id_ in order}
    base = _read(runs.samples[_key(full)], wanted) if full else {}
    # The same for all rows, and most of a page: rendered once.
    shown = {id_: _asked(asked[id_]) for id_ in wanted if id_ in asked}
    for entry in entries:
        yield _entry_pages(site, view, entry, chosen[entry.id], runs, base, base_scores, shown)


def _key(entry: BoardEntry | None) -> str:
    return "" if entry is None else entry.first.record.key


def _order(scores: Mapping[str, float], base: Mapping[str, float]) -> list[str]:
    """Return the documents: what lost or won most first, and of two alike the loss."""

    def place(id_: str) -> tuple[float, float, str]:
        change = scores[id_] - base.get(id_, scores[id_])
        return -abs(change), change, id_

    return sorted(scores, key=place)[:MOST]


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
    site: Site,
    view: BoardView,
    entry: BoardEntry,
    order: Sequence[str],
    runs: Runs,
    base: Mapping[str, dict[str, Any]],
    base_scores: Mapping[str, float],
    asked: Mapping[str, Markup],
) -> tuple[BoardEntry, Shelf, list[File]]:
    record = entry.first.record
    samples = _read(runs.samples[record.key], order)
    depth = record.backbone.layers
    shelf = Shelf(first_page(view, entry, runs) or "")
    render = environment().get_template("document.html.j2").module.article  # type: ignore[attr-defined]  # a macro
    pages: list[list[str]] = [[]]
    marks: list[tuple[str, str, int, int]] = []  # anchor, verdict, height, page
    size = 0
    scores = runs.scores[record.key]
    spread = max((abs(scores[id_] - base_scores.get(id_, scores[id_])) for id_ in order), default=0.0) or 1.0
    taken: dict[str, int] = {}
    same = entry.role == "full"
    for id_ in order:
        stem = f"d-{formatting.slug(id_)}"
        taken[stem] = taken.get(stem, 0) + 1
        anchor = stem if taken[stem] == 1 else f"{stem}-{taken[stem]}"
        full = None if same else base.get(id_)
        document = _document(samples[id_], full, asked.get(id_, Markup()), anchor, depth, base_scores.get(id_))
        article = str(render(document, view.metric)).rstrip("\n")
        size += len(article.encode())
        if pages[-1] and size > LARGEST - _ROOM:
            pages.append([])
            size = len(article.encode())
        pages[-1].append(article)
        shelf.shard[id_] = len(pages) - 1
        shelf.anchor[id_] = anchor
        change = abs(scores[id_] - base_scores.get(id_, scores[id_]))
        marks.append((anchor, document.verdict, 1 + round(7 * change / spread), len(pages) - 1))
    files: list[File] = []
    name = entry.id
    for number, articles in enumerate(pages):
        context = {
            "root": "../../",
            "here": "samples",
            "records": site.records,
            "view": view,
            "entry": entry,
            "back": f"../../{file_of(site, view)}",
            "method_page": site.pages[entry.method],
            "articles": [Markup(article) for article in articles],  # rendered above, escaped there
            "marks": [(a, v, h, _page(name, page, number)) for a, v, h, page in marks] if len(marks) <= MOST else [],
            "tally": {one: sum(mark[1] == one for mark in marks) for one in ("worse", "better", "same", "equal")},
            "links": [(page + 1, _page(name, page, -1), page == number) for page in range(len(pages))],
            "left_out": len(scores) - len(order),
            "siblings": [
                (f"{one.id}.html", f"{100 * one.budget:.4g} %", one.id == entry.id)
                for one in view.entries
                if one.label == entry.label and one.budget is not None and _key(one) in runs.samples
            ],
            "decimals": formatting.decimals(list(scores.values())),
        }
        files.append((_file(shelf.file, number), environment().get_template("samples.html.j2").render(context)))
    return entry, shelf, files


def _file(stem: str, number: int) -> str:
    return f"{stem}.html" if number == 0 else f"{stem}-{number + 1}.html"


def _page(stem: str, page: int, here: int) -> str:
    return "" if page == here else _file(stem, page)


def _document(
    sample: Mapping[str, Any],
    full: Mapping[str, Any] | None,
    asked: Markup,
    anchor: str,
    depth: int,
    full_score: float | None,
) -> ShownDocument:
    output = sample["output"]
    verdict = "equal"
    before = None
    after = _text(output, sample["left"])
    if full is not None:
        change = sample["score"] - full["score"]
        verdict = "worse" if change < 0 else "better" if change > 0 else "same"
        if output == full["output"]:
            verdict = "equal" if change == 0 else verdict
        else:
            old, new = word_diff(full["output"], output)
            before = ShownText(_marked(old, "del"), full["left"])
            after = ShownText(_marked(new, "ins"), sample["left"])
    routes = [(route, times) for route, times in sample.get("routes", ())]
    drawn = token_map(routes)
    pieces = sample.get("pieces", ()) if drawn is not None else ()
    tinted = None
    if drawn is not None and drawn.varies and pieces:
        shown = tints(routes, pieces[: drawn.columns])
        tinted = Markup("".join(f'<b class="s{step}">{html(piece)}</b>' for step, piece in shown))
    layers = sample["layers"]
    mean = sum(layers) / len(layers) if layers else None
    facts = [f"{sample['tokens']['generated']} tokens"]
    if mean is not None:
        facts.append(f"{mean:.1f} of {depth} layers on average")
    if sample.get("choice"):
        facts.append(f"chose {sample['choice']}")
    if sample["truncated"]:
        facts.append("the prompt was cut")
    if sample.get("tight"):
        facts.append(f"{formatting.counted(len(sample['tight']), 'close call')}")
    return ShownDocument(
        id=sample["id"],
        anchor=anchor,
        verdict=verdict,
        full_score=full_score,
        score=sample["score"],
        asked=asked,
        full=before,
        output=after,
        map=drawn,
        tinted=tinted,
        pieces=json.dumps(list(pieces[: drawn.columns]), ensure_ascii=False) if drawn is not None and pieces else "",
        facts=", ".join(facts),
    )


def _asked(one: Asked) -> Markup:
    template = environment().get_template("asked.html.j2")
    references = [_text(*shorten(reference)) for reference in one.references[:REFERENCES]]
    left = max(0, len(one.references) - REFERENCES)
    return Markup(template.render(prompt=_text(*shorten(one.prompt)), references=references, left=left))


def _text(text: str, left: int) -> ShownText:
    return ShownText(Markup(html(text)), left)


def _marked(parts: Parts, tag: str) -> Markup:
    """Return a text with what the other lacks marked, the blanks before it left out of the mark."""
    marked = []
    for same, piece in parts:
        if same:
            marked.append(html(piece))
            continue
        word = piece.lstrip()
        marked.append(f"{piece[: len(piece) - len(word)]}<{tag}>{html(word)}</{tag}>")
    return Markup("".join(marked))
