"""One sample as a page shows it: its text beside full depth's, the words that differ, and the layers of each token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from dlbench.leaderboard import formatting
from dlbench.leaderboard.charts.token_map import TokenMap, tints, token_map
from dlbench.leaderboard.pages.environment import environment
from dlbench.leaderboard.pages.escaping import html, shorten
from dlbench.leaderboard.pages.word_diff import Parts, word_diff
from dlbench.records.schema import Asked

REFERENCES = 3
"""References that are shown; the others are counted."""


@dataclass(frozen=True, slots=True)
class SampleText:
    """A shortened text, and how many characters of it are left out."""

    html: Markup
    left: int


@dataclass(frozen=True, slots=True)
class SampleDocument:
    """One sample as a page shows it.

    Attributes:
        anchor: its id on the page.
        verdict: `worse` or `better` than full depth, `same` score with another text, or `equal`.
        full_score: full depth's score; None where it did not run.
        asked: prompt and references.
        full: full depth's text, where the row's differs from it.
        output: the row's text.
        map: the layers that each token ran.
        tinted: the text tinted by the layers of its tokens, where they vary.
        pieces: the text of each token on the map, as JSON.
        facts: lengths, layers and remarks, in words.
    """

    id: str
    anchor: str
    verdict: str
    full_score: float | None
    score: float
    asked: Markup
    full: SampleText | None
    output: SampleText
    map: TokenMap | None
    tinted: Markup | None
    pieces: str
    facts: str


def sample_document(
    sample: Mapping[str, Any],
    full: Mapping[str, Any] | None,
    *,
    asked: Markup,
    anchor: str,
    depth: int,
    full_score: float | None,
) -> SampleDocument:
    """Return a sample as a page shows it.

    Args:
        sample: of the row, as JSON, its output shortened.
        full: full depth's on the same document; None where there is none, or where the row is full depth.
        asked: prompt and references, rendered.
        anchor: its id on the page.
        depth: layers of the backbone.
        full_score: full depth's score.
    """
    verdict, before, after = _against_full(sample, full)
    layers, tinted, pieces = _layers_of_tokens(sample)
    return SampleDocument(
        id=sample["id"],
        anchor=anchor,
        verdict=verdict,
        full_score=full_score,
        score=sample["score"],
        asked=asked,
        full=before,
        output=after,
        map=layers,
        tinted=tinted,
        pieces=pieces,
        facts=_facts(sample, depth),
    )


def _against_full(
    sample: Mapping[str, Any], full: Mapping[str, Any] | None
) -> tuple[str, SampleText | None, SampleText]:
    """Return the verdict, full depth's text where it differs, and the row's; words that the other lacks are marked."""
    output = _text(sample["output"], sample["left"])
    if full is None:
        return "equal", None, output
    change = sample["score"] - full["score"]
    verdict = "worse" if change < 0 else "better" if change > 0 else "same"
    if sample["output"] == full["output"]:
        return verdict if change else "equal", None, output
    old, new = word_diff(full["output"], sample["output"])
    return verdict, SampleText(_marked(old, "del"), full["left"]), SampleText(_marked(new, "ins"), sample["left"])


def _layers_of_tokens(sample: Mapping[str, Any]) -> tuple[TokenMap | None, Markup | None, str]:
    """Return the map of a sample, its tinted text where tokens ran different depths, and the map's tokens as JSON."""
    routes = [(route, times) for route, times in sample.get("routes", ())]
    drawn = token_map(routes)
    pieces = sample.get("pieces", ())
    if drawn is None or not pieces:
        return drawn, None, ""
    pieces = pieces[: drawn.columns]
    tinted = None
    if drawn.varies:
        steps = tints(routes, pieces)
        tinted = Markup("".join(f'<b class="s{step}">{html(piece)}</b>' for step, piece in steps))
    return drawn, tinted, json.dumps(list(pieces), ensure_ascii=False)


def _facts(sample: Mapping[str, Any], depth: int) -> str:
    facts = [f"{sample['tokens']['generated']} tokens"]
    layers = sample["layers"]
    if layers:
        facts.append(f"{sum(layers) / len(layers):.1f} of {depth} layers on average")
    if sample.get("choice"):
        facts.append(f"chose {sample['choice']}")
    if sample["truncated"]:
        facts.append("the prompt was cut")
    if sample.get("tight"):
        facts.append(formatting.counted(len(sample["tight"]), "close call"))
    return ", ".join(facts)


def prompt_and_references(asked: Asked) -> Markup:
    """Return what was asked, as HTML."""
    template = environment().get_template("asked.html.j2")
    references = [_text(*shorten(reference)) for reference in asked.references[:REFERENCES]]
    left = max(0, len(asked.references) - REFERENCES)
    return Markup(template.render(prompt=_text(*shorten(asked.prompt)), references=references, left=left))


def _text(text: str, left: int) -> SampleText:
    return SampleText(Markup(html(text)), left)


def _marked(parts: Parts, tag: str) -> Markup:
    """Return a text with the words marked that the other lacks; blanks before a word are left out of its mark."""
    pieces = []
    for shared, piece in parts:
        if shared:
            pieces.append(html(piece))
            continue
        word = piece.lstrip()
        pieces.append(f"{piece[: len(piece) - len(word)]}<{tag}>{html(word)}</{tag}>")
    return Markup("".join(pieces))
