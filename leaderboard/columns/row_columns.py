"""The columns of rows: one method at one budget on a page, one record in the CSV file and in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from markupsafe import Markup

from dlbench.leaderboard import formatting
from dlbench.leaderboard.columns.column import Cell, Column, Output, Table, TableInfo, columns_of
from dlbench.leaderboard.columns.row_line import RowLine
from dlbench.leaderboard.data.cost_axes import BatchTimes
from dlbench.leaderboard.data.entries import BoardEntry, kind_of


class _Kept(NamedTuple):
    share: float
    bounds: tuple[float, float] | None
    ok: bool


def _kept(line: RowLine) -> _Kept | None:
    entry = line.entry
    return None if entry.retained is None else _Kept(entry.retained, line.bounds, entry.ok)


def _kept_latex(kept: _Kept) -> str:
    low, high = kept.bounds or (0.0, 0.0)
    interval = "" if kept.bounds is None else rf" {{\scriptsize [{100 * low:.1f}, {100 * high:.1f}]}}"
    dagger = "" if kept.ok else r"$^\dagger$"
    return f"{100 * kept.share:.1f}{dagger}{interval}"


def _budget_text(entry: BoardEntry) -> str:
    return formatting.budget(entry.budget) + ("" if entry.ok else " †")


def _status(entry: BoardEntry) -> str:
    if any(row.record.withdrawn is not None for same in entry.rows for row in same):
        return "withdrawn"
    return "ok" if entry.ok else "unreachable"


def _exact(value: object) -> object:
    return value


RowColumn = Column[RowLine]
RowCell = Cell[RowLine]


def _field(key: str, value: Callable[[RowLine], Any]) -> RowColumn:
    """Return a column of the CSV file alone."""
    return RowColumn(key=key, value=value, csv=RowCell(key))


def _score(info: TableInfo) -> Iterable[RowColumn]:
    yield RowColumn(
        key="score",
        value=lambda line: line.entry.score,
        format=lambda score: formatting.score(score, info.decimals),
        best="most",
        page=None if info.metric is None else RowCell(info.metric),
        method=RowCell("Score"),
        terminal=RowCell("quality"),
        csv=RowCell("quality"),
        json=RowCell("score"),
    )


_COSTS = "cost, % of full depth"


def _share(key: str, page: str, terminal: str | None, csv: str, method: str | None = None) -> RowColumn:
    """Return the column of a cost: a realised share of full depth's.

    Args:
        key: of the cost, as charts have it.
        page: its heading; the others likewise, None where an output leaves it out.
        terminal: likewise.
        csv: name of the field. JSON has all costs in one object.
        method: likewise.
    """
    return RowColumn(
        key=key,
        value=lambda line: line.entry.costs.get(key),
        format=formatting.hundredths,
        page=RowCell(page, group=_COSTS),
        method=None if method is None else RowCell(method),
        terminal=None if terminal is None else RowCell(terminal, format=formatting.share),
        csv=RowCell(csv),
    )


def _shares(info: TableInfo) -> Iterable[RowColumn]:
    decode = "FLOPs\ndecode" if info.wide else None
    yield _share("layers", "layers", "layer\nshare", "layer_share", "Layers, %")
    yield _share("decode", "FLOPs,\ndecoding", decode, "flop_share_decode")
    yield _share("total", "FLOPs,\ntotal", "FLOPs\ntotal", "flop_share_total", "FLOPs total, %")


def _times(info: TableInfo) -> Iterable[RowColumn]:
    for batch in info.batches:
        yield from _batch_times(batch, info.wide)


def _batch_times(batch: int, wide: bool) -> Iterable[RowColumn]:
    def times(line: RowLine) -> BatchTimes | None:
        return line.entry.times.get(batch)

    def speedup(line: RowLine) -> float | None:
        there = times(line)
        return None if there is None else there.speedup

    def time_by_flops(line: RowLine) -> float | None:
        gained, flops = speedup(line), line.entry.costs.get("decode")
        return 1 / gained / flops if gained and flops else None

    def milliseconds(name: Literal["ms_per_token", "ms_per_document"]) -> Callable[[RowLine], float | None]:
        return lambda line: None if (there := times(line)) is None else getattr(there, name)

    group = f"time per token, batch {batch}"
    yield RowColumn(
        key=f"token{batch}",
        value=lambda line: line.entry.costs.get(f"token{batch}"),
        help="Share of full's time per token, each run beside one of full; milliseconds are of the row's own runs",
        page=RowCell("% of full, ms", times, macro="time", group=group),
    )
    yield RowColumn(
        key=f"ms{batch}",
        value=milliseconds("ms_per_token"),
        terminal=RowCell(f"ms/token\nbatch {batch}", times, _milliseconds_and_speedup) if wide else None,
        csv=RowCell(f"decode_ms_per_token_b{batch}"),
    )
    yield RowColumn(
        key=f"ratio{batch}",
        value=time_by_flops,
        format=lambda ratio: f"{ratio:.2f}",
        help="Share of full's time over share of its FLOPs",
        page=RowCell("time ÷\nFLOPs", group=group),
    )
    yield _field(f"ms_per_document_b{batch}", milliseconds("ms_per_document"))
    yield RowColumn(
        key=f"speedup{batch}",
        value=speedup,
        terminal=None if wide else RowCell(f"×\nb{batch}", times, lambda there: formatting.speedup(there.speedup, 1)),
        csv=RowCell(f"speedup_b{batch}"),
    )


def _milliseconds_and_speedup(there: BatchTimes) -> str:
    return f"{formatting.milliseconds(there.ms_per_token)} {formatting.speedup(there.speedup, 1):>4}".rstrip()


def _extras(info: TableInfo) -> Iterable[RowColumn]:
    def reader(name: str) -> Callable[[RowLine], float | None]:
        return lambda line: line.record.quality.extra.get(name) if line.record.quality else None

    for name in info.extras:
        yield RowColumn(key=f"extra:{name}", value=reader(name), format=formatting.score, method=RowCell(name))


def _samples(info: TableInfo) -> Iterable[RowColumn]:
    title = Markup('<span class="hide">Samples</span>')
    yield RowColumn(
        key="samples",
        value=lambda line: line.entry.id,
        sorts=False,
        page=RowCell(title, macro="sample_link") if info.samples else None,
    )


ROWS: Table[RowLine] = (
    RowColumn(key="id", value=lambda line: line.entry.id, json=RowCell("id")),
    RowColumn(
        key="task",
        value=lambda line: line.track.task.name,
        left=True,
        method=RowCell("Task", before="budget"),
        csv=RowCell("task"),
    ),
    _field("track", lambda line: line.track.name),
    RowColumn(
        key="name",
        value=lambda line: line.entry.label,
        left=True,
        page=RowCell("Method", macro="name"),
        method=RowCell("Variant", macro="variant"),
        terminal=RowCell("method"),
        csv=RowCell("label"),
        json=RowCell("label"),
    ),
    RowColumn(key="method", value=lambda line: line.entry.method, csv=RowCell("method"), json=RowCell("method")),
    RowColumn(
        key="kind", value=lambda line: kind_of(line.entry), csv=RowCell("kind", before="rank"), json=RowCell("kind")
    ),
    _field("deployable", lambda line: line.record.method.deployable),
    _field("backbone", lambda line: line.entry.first.model),
    _field("dtype", lambda line: line.record.backbone.dtype),
    _field("kv", lambda line: line.record.run.kv),
    _field("seed", lambda line: line.record.run.seed),
    RowColumn(
        key="setting",
        value=lambda line: line.entry.settings,
        left=True,
        method=RowCell("Settings, remarks", macro="settings", before=""),
        csv=RowCell("setting"),
    ),
    RowColumn(
        key="budget",
        value=lambda line: line.entry.budget,
        format=lambda budget: formatting.number(100 * budget),
        page=RowCell("Budget,\n%"),
        method=RowCell("Budget, %"),
        terminal=RowCell("budget", lambda line: line.entry, _budget_text),
        csv=RowCell("budget"),
        json=RowCell("budget", format=_exact),
    ),
    RowColumn(
        key="status",
        value=lambda line: _status(line.entry),
        csv=RowCell("status"),
        json=RowCell("status"),
    ),
    RowColumn(
        key="trust",
        value=lambda line: line.entry.trust,
        left=True,
        method=RowCell("Trust", macro="trust", before="setting"),
        csv=RowCell("trust"),
        json=RowCell("trust"),
    ),
    RowColumn(key="seeds", value=lambda line: line.entry.repeats, json=RowCell("seeds")),
    _field("metric", lambda line: line.track.task.metric),
    _field("documents", lambda line: line.track.task.n),
    _field("drawn", lambda line: line.record.task.drawn),
    _field("sources", lambda line: line.record.task.sources),
    _field("truncated", lambda line: line.record.task.truncated),
    _field("fit_split", lambda line: line.record.task.fit_split),
    _field("fit_overlap", lambda line: line.record.task.fit_overlap),
    _score,
    _field("corpus", lambda line: line.record.quality and line.record.quality.corpus),
    RowColumn(
        key="kept",
        value=lambda line: line.entry.retained,
        format=formatting.hundredths,
        best="most",
        left=True,
        page=RowCell("Quality kept, %\n[95 %]", _kept, macro="kept", before="score"),
        method=RowCell("Kept, % [95 %]", _kept, macro="kept_interval", before="score"),
        terminal=RowCell("retained [95 %]", _kept, lambda kept: formatting.ratio(kept.share, kept.bounds)),
        latex=RowCell("quality kept, per cent of full depth, with 95 % intervals", _kept, _kept_latex),
        csv=RowCell("retained"),
        json=RowCell("retained"),
    ),
    _field("retained_low", lambda line: line.bounds and line.bounds[0]),
    _field("retained_high", lambda line: line.bounds and line.bounds[1]),
    RowColumn(key="retained_ci95", value=lambda line: line.bounds, json=RowCell("retained_ci95")),
    _shares,
    RowColumn(key="costs", value=lambda line: dict(sorted(line.entry.costs.items())), json=RowCell("costs")),
    _field("pareto", lambda line: line.front and line.front[0]),
    _times,
    RowColumn(
        key="rank",
        value=lambda line: line.place and line.place.rank,
        help="Place among the rows of one budget, with the places that the data leave open for all of them together",
        page=RowCell("Rank", lambda line: line.place, macro="place", span=2, before="name"),
        csv=RowCell("rank"),
        json=RowCell("rank"),
    ),
    _field("rank_low", lambda line: line.place and line.place.low),
    _field("rank_high", lambda line: line.place and line.place.high),
    _field("gap_closed", lambda line: line.gap and line.gap.estimate),
    _field("gap_closed_low", lambda line: line.gap and line.gap.low),
    _field("gap_closed_high", lambda line: line.gap and line.gap.high),
    _field("method_enough_95_flops", lambda line: line.enough and line.enough.total),
    _field("method_enough_95_layers", lambda line: line.enough and line.enough.layers),
    RowColumn(
        key="rank_interval",
        value=lambda line: line.place and (line.place.low, line.place.high),
        json=RowCell("rank_interval"),
    ),
    RowColumn(key="tie_letters", value=lambda line: line.place and line.place.letters, json=RowCell("tie_letters")),
    RowColumn(key="on_front", value=lambda line: line.front and line.front[0], json=RowCell("on_front")),
    RowColumn(
        key="front",
        value=lambda line: line.front and line.front[1],
        help="How likely no other row of this backbone is both cheaper and better; the smaller dense model is left out",
        best="most",
        page=RowCell("On the\nfront", lambda line: line.front, macro="front"),
        json=RowCell("on_front_probability"),
    ),
    _samples,
    _extras,
    RowColumn(
        key="keys",
        value=lambda line: sorted({row.record.key for rows in line.entry.rows for row in rows}),
        json=RowCell("keys"),
    ),
    _field("key", lambda line: line.record.key),
    _field("notes", lambda line: "; ".join(line.record.notes)),
)
"""Every column of the tables of rows. To add one, add it here: all outputs for which it has a cell show it."""


def row_columns(output: Output, info: TableInfo) -> list[RowColumn]:
    """Return the columns of rows that an output shows, in its order."""
    return columns_of(ROWS, output, info)
