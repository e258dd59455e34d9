"""Every file of a site: static pages that work from a folder, without scripts, without a request to anywhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib.resources import files as resources

from dlbench.leaderboard import formatting
from dlbench.leaderboard.analysis.claims import Claim
from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.board import Board
from dlbench.leaderboard.charts import frontier, vega
from dlbench.leaderboard.charts.style import site_marks
from dlbench.leaderboard.data.apart import apart, superseded
from dlbench.leaderboard.data.entries import shown
from dlbench.leaderboard.data.run_files import Runs
from dlbench.leaderboard.data.views import BoardView
from dlbench.leaderboard.exports import board_json, table_csv, table_latex
from dlbench.leaderboard.pages.environment import style
from dlbench.leaderboard.pages.front_page import details_of, fronts_of
from dlbench.leaderboard.pages.method_docs import about
from dlbench.leaderboard.pages.method_page import method_files, page_stems
from dlbench.leaderboard.pages.page_data import chart_shard, document_shard, pair_shards, script
from dlbench.leaderboard.pages.sample_pages import SampleIndex, entry_files
from dlbench.leaderboard.pages.site_context import MOST_ROWS, File, Site, ViewLink, file_of, rows_file
from dlbench.leaderboard.pages.task_page import view_page
from dlbench.leaderboard.workers import ALONE, Workers
from dlbench.records.jsonl import JsonLine, format_line
from dlbench.records.schema import Asked


def site_files(board: Board, workers: Workers = ALONE) -> Iterator[tuple[str, bytes]]:
    """Yield every file of the site but the manifest.

    The front page comes last: a page that is there has all that it links to.

    Args:
        board: what is shown.
        workers: take over the views and the methods' pages.
    """
    for path, content in _files(board, workers):
        yield path, content.encode() if isinstance(content, str) else content


def _files(board: Board, workers: Workers) -> Iterator[File]:
    runs, site = board.runs, _site(board)
    pages = workers.run(_page_calls(board, site))
    yield "records.jsonl", _lines(runs.records)
    yield "records.csv", table_csv(board.views, board.standings)
    yield "board.json", board_json(runs, board.views, board.standings)
    if runs.timings:
        yield "timing.jsonl", _lines(runs.timings)
    yield from _assets()
    for written in pages:
        yield from written


def _page_calls(board: Board, site: Site) -> Iterator[Callable[[], list[File]]]:
    runs = board.runs
    yield partial(method_files, site, board.views, runs)
    asked = runs.documents() if runs.asked else {}
    by_track: dict[str, list[Claim]] = defaultdict(list)
    for claim in board.claims:
        by_track[claim.track].append(claim)
    for view in reversed(board.views):
        telling = [one for track in view.tracks for one in by_track[track.anchor]]
        texts = {} if view.suite else asked.get(view.tracks[0].name, {})
        said = board.headlines(view) if view.suite else [], telling
        yield partial(view_files, site, view, board.standings[view.slug], runs.of(view.keys), texts, said)


def _lines(items: Iterable[JsonLine]) -> str:
    return "".join(f"{format_line(item)}\n" for item in items)


def _assets() -> Iterator[File]:
    yield "assets/board.css", style()
    for path in sorted(resources("dlbench.leaderboard").joinpath("static").iterdir(), key=lambda one: one.name):
        if path.name.endswith(".js"):
            yield f"assets/{path.name}", path.read_bytes()
    yield "assets/vega.js", vega.bundle()


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
    warnings += [*superseded(runs.tracks), *apart(runs.tracks)]
    downloads = [
        ("records.csv", "all rows as one flat table"),
        ("board.json", "views, ranks and intervals"),
        ("records.jsonl", "the records"),
        ("dlbench.bib", "what to cite"),
    ]
    if runs.timings:
        downloads.append(("timing.jsonl", "the times"))
    return Site(
        views=tuple(ViewLink(view.slug, view.title, view.backbone) for view in board.views),
        records=len(runs.records),
        marks=site_marks(board.views),
        pages=page_stems([(one.method.name, one.method.deployable) for one in runs.records], formatting.slug),
        introduced=_introduced(runs),
        downloads=tuple(downloads),
        common_trust=trusts.pop() if len(trusts) == 1 else "",
        warnings=tuple(warnings),
    )


def _introduced(runs: Runs) -> dict[str, tuple[str, tuple[str, ...]]]:
    sources: dict[str, set[str]] = defaultdict(set)
    for record in runs.records:
        sources[record.method.name].add(record.method.source_sha256)
    told = {name: about(name, shas) for name, shas in sorted(sources.items())}
    return {name: (one.summary, one.papers) for name, one in told.items()}


def view_files(
    site: Site,
    view: BoardView,
    standings: Standings,
    runs: Runs,
    asked: Mapping[str, Asked],
    said: tuple[Sequence[str], Sequence[Claim]],
) -> list[File]:
    """Return the files of a view, its page last.

    Args:
        site: what all pages have in common.
        view: the view.
        standings: its statistics.
        runs: its records, scores and samples.
        asked: prompts and references, by document id.
        said: lines about it, and comparisons of single methods.
    """
    files: list[File] = [(f"tables/{view.slug}.tex", table_latex(view, standings))]
    indices: dict[str, SampleIndex] = {}
    for entry, index, written in entry_files(site, view, runs, asked):
        indices[entry.id] = index
        files += written
    svg, drawn = _chart_files(site, view, standings) if view.axes else (None, [])
    files += drawn
    if standings.compared is not None:
        files += pair_shards(view, standings.compared)
        files.append((f"data/{view.slug}.docs.js", document_shard(view, standings.compared, indices)))
    samples = {id_: f"{index.file}.html" for id_, index in indices.items()}
    fronts = fronts_of(site, view, standings, samples)
    details = details_of(site, view, standings, samples, runs.usage)
    files.append((f"data/{view.slug}.front.js", script(f"front:{view.slug}", fronts)))
    files.append((f"data/{view.slug}.details.js", script(f"details:{view.slug}", details)))
    page = partial(view_page, site, view, standings, said, (svg, fronts), samples)
    if len(view.entries) > MOST_ROWS:
        files.append((rows_file(site, view), page(whole=True)))
    return [*files, (file_of(site, view), page())]


def _chart_files(site: Site, view: BoardView, standings: Standings) -> tuple[str, list[File]]:
    """Return the chart of a view as part of its page, and the files of the chart."""
    axis = view.axes[0]
    data = frontier.datasets(view, site.marks, axis, standings)
    spec = frontier.specification(view, data, axis)
    drawn = vega.draw(spec)
    title = f"{view.title} on {view.backbone}: {view.metric} against {axis.title}"
    files: list[File] = [
        (f"charts/{view.slug}.svg", vega.alone_svg(drawn)),
        (f"data/{view.slug}.chart.js", chart_shard(view, spec, site.marks, standings)),
    ]
    return vega.inline_svg(drawn, "frontier", title, _described(view, standings)), files


def _described(view: BoardView, standings: Standings) -> str:
    """Say what the chart shows, for people who do not see it."""
    axis = view.axes[0]
    lines = [
        frontier.describe(entry, axis, view.metric, standings)
        for entry in view.entries
        if shown(entry) and axis.key in entry.costs
    ]
    return "; ".join(lines[:40]) + ". The table below holds all figures."
