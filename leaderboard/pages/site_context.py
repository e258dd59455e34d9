"""What all pages of a site have in common, and how they link to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dlbench.leaderboard.charts.style import Mark
from dlbench.leaderboard.data.views import BoardView

MOST_ROWS = 150
"""Rows that a view's first page shows; beyond, one per method, and all on a page of their own."""
File = tuple[str, str | bytes]
"""A path within the site, with what stands there."""


@dataclass(frozen=True, slots=True)
class ViewLink:
    """A view as others link to it."""

    slug: str
    title: str
    backbone: str


@dataclass(frozen=True, slots=True)
class Site:
    """What all pages of a site have in common; small, since every worker gets it with every view.

    Attributes:
        records: number of records.
        pages: a method's name → the stem of its page.
        introduced: a method's name → what it does in one line, and its papers.
        downloads: file names with what they hold.
        common_trust: the trust of all rows, which then needs no badge; empty where rows differ.
        warnings: lines above every view.
    """

    views: tuple[ViewLink, ...]
    records: int
    marks: Mapping[str, Mark]
    pages: Mapping[str, str]
    introduced: Mapping[str, tuple[str, tuple[str, ...]]]
    downloads: tuple[tuple[str, str], ...]
    common_trust: str
    warnings: tuple[str, ...]


def file_of(site: Site, view: BoardView | ViewLink) -> str:
    """Return the file of a view: the first is the front page."""
    return "index.html" if view.slug == site.views[0].slug else f"{view.slug}.html"


def rows_file(site: Site, view: BoardView) -> str:
    """Return the file of a view on which every row stands."""
    return f"{view.slug}-all.html" if len(view.entries) > MOST_ROWS else file_of(site, view)
