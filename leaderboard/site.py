"""Build the site: static pages that work from a folder, without scripts, without a request to anywhere."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as resources
from pathlib import Path

from dlbench.errors import DlbenchError
from dlbench.leaderboard import chart, drawing, figures, looks, pages
from dlbench.leaderboard.claims import Claim, claims
from dlbench.leaderboard.exports import bibtex, board_json, table_csv, table_latex
from dlbench.leaderboard.headlines import headlines
from dlbench.leaderboard.methodpages import method_files, page_stems
from dlbench.leaderboard.pages import Site, file_of, view_page
from dlbench.leaderboard.runs import Runs, read_runs
from dlbench.leaderboard.samples import Shelf, entry_files
from dlbench.leaderboard.shards import chart_shard, document_shard, pair_shards
from dlbench.leaderboard.standings import Standings, standings
from dlbench.leaderboard.tracks import Track, build_tracks
from dlbench.leaderboard.views import View, build_views
from dlbench.lines import JsonLine, format_line

MANIFEST = "manifest.json"
File = tuple[str, str | bytes]
"""A path within the site, with what stands there."""


class BoardError(DlbenchError):
    """The site can't be built there."""


@dataclass(frozen=True, slots=True)
class Board:
    """Runs, and what was found out about them.

    Attributes:
        found: by the view's slug.
    """

    runs: Runs
    tracks: tuple[Track, ...]
    views: tuple[View, ...]
    found: Mapping[str, Standings]


def read_board(run_dirs: Sequence[Path]) -> Board:
    """Read run folders and work out all statistics.

    Raises:
        RecordError: a folder holds no records, or bad ones; the message names file and line.
    """
    runs = read_runs(run_dirs)
    tracks = build_tracks(runs.records, runs.timings)
    views = build_views(tracks)
    return Board(runs, tuple(tracks), tuple(views), {view.slug: standings(view, runs.scores) for view in views})


def build(run_dirs: Sequence[Path], out: Path, board: Board | None = None) -> Path:
    """Build the site of one or several run folders and return its front page.

    The same records give the same bytes. Files of an earlier site that this one lacks are removed.

    Args:
        run_dirs: folders of runs.
        out: the site's.
        board: what `read_board` gave for these runs, where they have been read already.

    Raises:
        RecordError: a folder holds no records, or bad ones; the message names file and line.
        BoardError: `out` is no place for a site.
    """
    check_place(run_dirs, out)
    board = board or read_board(run_dirs)
    before = _listed(out)
    sums = {}
    for path, raw in site_files(board):
        sums[path] = hashlib.sha256(raw).hexdigest()
        put(out / path, raw)
    for path in before - sums.keys():
        (out / path).unlink(missing_ok=True)
    put(out / MANIFEST, _manifest(sums))
    return out / "index.html"


def check(run_dirs: Sequence[Path], out: Path) -> int:
    """Build the site in memory and compare it with the one that is there; return how many files agree.

    Raises:
        BoardError: a file is missing, differs, or should not be there.
    """
    board = read_board(run_dirs)
    again = f"build it again: dlbench board {' '.join(map(str, run_dirs))} --out {out}"
    sums = {}
    for path, raw in site_files(board):
        file = out / path
        if not file.is_file():
            raise BoardError(f"{file} is missing; {again}")
        if file.read_bytes() != raw:
            raise BoardError(f"{file} is stale: these records give another; {again}")
        sums[path] = hashlib.sha256(raw).hexdigest()
    known = {*sums, MANIFEST}
    there = (str(one.relative_to(out)) for one in out.rglob("*") if one.is_file())
    strange = sorted(path for path in there if path not in known)
    if strange:
        raise BoardError(f"{out / strange[0]} belongs to no site of these records; remove it, or {again}")
    return len(sums)


def write_index(run_dirs: Sequence[Path], path: Path) -> None:
    """Write the board's figures and ranks as one JSON file: what a repository keeps of a site, to see it change.

    Raises:
        RecordError: a folder holds no records, or bad ones.
        BoardError: the file can't be written.
    """
    put(path, _index(run_dirs))


def check_index(run_dirs: Sequence[Path], path: Path) -> None:
    """Compare such a file with what the records give.

    Raises:
        BoardError: it is missing or stale.
    """
    again = f"write it again: dlbench board {' '.join(map(str, run_dirs))} --index {path}"
    if not path.is_file():
        raise BoardError(f"{path} is missing; {again}")
    if path.read_bytes() != _index(run_dirs):
        raise BoardError(f"{path} is stale: these records give other figures; {again}")


def _index(run_dirs: Sequence[Path]) -> bytes:
    board = read_board(run_dirs)
    return board_json(board.runs, board.views, board.found).encode()


def _manifest(sums: Mapping[str, str]) -> bytes:
    return (json.dumps(sums, indent=0, sort_keys=True) + "\n").encode()


def _listed(out: Path) -> set[str]:
    try:
        listed = json.loads((out / MANIFEST).read_text())
    except (OSError, ValueError):
        return set()
    return {
        str(path)
        for path in (listed if isinstance(listed, dict) else ())
        if not Path(path).is_absolute() and ".." not in Path(path).parts
    }


def check_place(run_dirs: Sequence[Path], out: Path) -> None:
    """Refuse what is no place for a site.

    Raises:
        BoardError: it is a file, or a run folder itself.
    """
    if out.exists() and not out.is_dir():
        raise BoardError(f"{out}: a file is in the way, name a folder")
    if any(out.resolve() == run_dir.resolve() for run_dir in run_dirs):
        raise BoardError(f"{out}: a run folder can't hold its own site, name another folder such as {out / 'site'}")


def put(path: Path, raw: bytes) -> None:
    """Write a file unless it is there already, as it is.

    Raises:
        BoardError: it can't be written.
    """
    try:
        if path.is_file() and path.read_bytes() == raw:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    except OSError as error:
        raise BoardError(f"{path}: {error.strerror or error}") from None


def site_files(board: Board) -> Iterator[tuple[str, bytes]]:
    """Yield every file of the site but the manifest.

    The front page comes last: a page that is there has all that it links to.
    """
    for path, content in _files(board):
        yield path, content.encode() if isinstance(content, str) else content


def _files(board: Board) -> Iterator[File]:
    runs = board.runs
    yield "records.jsonl", _lines(runs.records)
    yield "records.csv", table_csv(board.tracks)
    yield "board.json", board_json(runs, board.views, board.found)
    if runs.timings:
        yield "timing.jsonl", _lines(runs.timings)
    yield from _assets()
    site = _site(board)
    shelves: dict[tuple[str, str], Shelf] = {}
    asked = runs.documents() if runs.asked else {}
    for view in board.views:
        if not view.suite:
            for entry, shelf, written in entry_files(site, view, runs, asked.get(view.tracks[0].name, {})):
                shelves[view.slug, entry.id] = shelf
                yield from written
    papers: list[str] = []
    yield from method_files(site, runs, shelves, papers)
    yield "dlbench.bib", bibtex(runs, papers)
    said: dict[str, list[Claim]] = defaultdict(list)
    for claim in claims(runs.records, runs.scores):
        said[claim.track].append(claim)
    for view in reversed(board.views):
        found = board.found[view.slug]
        yield f"tables/{view.slug}.tex", table_latex(view, found)
        telling = [one for track in view.tracks for one in said[track.name]]
        rows = [row.record for track in view.tracks for row in track.rows]
        lines = headlines(rows, runs.scores) if view.suite else []
        yield from _view_files(site, view, found, (lines, telling), shelves)


def _lines(items: Iterable[JsonLine]) -> str:
    return "".join(f"{format_line(item)}\n" for item in items)


def _assets() -> Iterator[File]:
    yield "assets/board.css", pages.style()
    for path in sorted(resources("dlbench.leaderboard").joinpath("static").iterdir(), key=lambda one: one.name):
        if path.name.endswith(".js"):
            yield f"assets/{path.name}", path.read_bytes()
    yield "assets/vega.js", _vega()


@cache
def _vega() -> str:
    return drawing.bundle()


def _site(board: Board) -> Site:
    runs = board.runs
    trusts = {record.trust for record in runs.records}
    versions = sorted({record.env["dlbench"] for record in runs.records if "dlbench" in record.env})
    warnings = []
    if len(versions) > 1:
        warnings.append(
            f"These records come from different versions of dlbench ({', '.join(versions)}). "
            "Small differences between rows may be differences between versions."
        )
    downloads = [
        ("records.csv", "all rows as one flat table"),
        ("board.json", "views, ranks and intervals"),
        ("records.jsonl", "the records"),
        ("dlbench.bib", "what to cite"),
    ]
    if runs.timings:
        downloads.append(("timing.jsonl", "the times"))
    return Site(
        views=board.views,
        records=runs.records,
        marks=looks.site_marks(board.views),
        pages=page_stems([(one.method.name, one.method.deployable) for one in runs.records], figures.slug),
        downloads=tuple(downloads),
        provenance=_provenance(runs),
        usual=trusts.pop() if len(trusts) == 1 else "",
        warnings=tuple(warnings),
    )


def _provenance(runs: Runs) -> tuple[tuple[str, tuple[str, ...]], ...]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for record in runs.records:
        for name, value in record.env.items():
            found[name][value] += 1
    for timing in runs.timings:
        found["timed on"][f"{timing.device}, {timing.threads} threads, {timing.kernels} layers"] += 1
    # A run on many machines may have any number of values.
    return tuple((name, tuple(sorted(values)[:20])) for name, values in sorted(found.items())[:40])


def _view_files(
    site: Site,
    view: View,
    found: Standings,
    said: tuple[Sequence[str], Sequence[Claim]],
    shelves: Mapping[tuple[str, str], Shelf],
) -> Iterator[File]:
    svg = None
    if view.axes:
        axis = view.axes[0]
        spec = chart.specification(
            view, chart.datasets(view, site.marks, axis, found.frontiers.get(axis.key, {})), axis
        )
        title = f"{view.title} on {view.backbone}: {view.metric} against {axis.title}"
        drawn = drawing.draw(spec)
        svg = drawing.inline_svg(drawn, "frontier", title, _described(view, site))
        yield f"charts/{view.slug}.svg", drawing.alone_svg(drawn)
        yield f"data/{view.slug}.chart.js", chart_shard(view, spec, site.marks, found.frontiers)
    mine = {entry.id: shelf for entry in view.entries if (shelf := shelves.get((view.slug, entry.id))) is not None}
    samples = {id_: f"{shelf.file}.html" for id_, shelf in mine.items()}
    if found.scores is not None:
        yield from pair_shards(view, found.scores)
        yield f"data/{view.slug}.docs.js", document_shard(view, found.scores, mine)
    if len(view.entries) > pages.MOST_ROWS:
        yield f"{view.slug}-all.html", view_page(site, view, found, said, svg, samples, whole=True)
    yield file_of(site, view), view_page(site, view, found, said, svg, samples)


def _described(view: View, site: Site) -> str:
    """Say what the chart shows, for people who do not see it."""
    axis = view.axes[0]
    lines = [
        chart.describe(entry, axis, view.metric)
        for entry in view.entries
        if looks.shown(entry) and axis.key in entry.costs
    ]
    return "; ".join(lines[:40]) + ". The table below holds all figures."
