"""Entries: one method, or variant of one, at one budget. Rows that differ in their seed alone are repeats of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import get_args

from dlbench.leaderboard import formatting
from dlbench.leaderboard.data.cost_axes import BatchTimes, costs_of, mean_of, times_of
from dlbench.leaderboard.data.fit_seeds import SettingKey, group_seeds
from dlbench.leaderboard.data.tracks import Role, Row
from dlbench.records.schema import Trust
from dlbench.stats import FEWEST_DOCUMENTS


@dataclass(frozen=True, slots=True)
class BoardEntry:
    """One method, or variant of one, at one budget: a line of a table and a point of a chart.

    Attributes:
        id: for links; unique in its view, and the same as long as the records are.
        label: the method's name with what sets this variant apart.
        rows: by task; several of one task are repeats under other seeds.
        ok: the budget was reached on every task.
        score: mean of the task's metric; None over several tasks.
        retained: share of full depth's quality.
        bounds: 95 % interval of `retained`.
        costs: by the key of the axis.
        times: by batch size.
    """

    id: str
    label: str
    role: Role
    budget: float | None
    rows: tuple[tuple[Row, ...], ...]
    ok: bool
    score: float | None
    retained: float | None
    bounds: tuple[float, float] | None
    costs: Mapping[str, float]
    times: Mapping[int, BatchTimes]

    @property
    def first(self) -> Row:
        """One of the rows, for what they have in common."""
        return self.rows[0][0]

    @property
    def method(self) -> str:
        """The method's name."""
        return self.first.record.method.name

    @property
    def control(self) -> bool:
        """Whether it is a control (`Row.control`)."""
        return self.first.control

    @property
    def repeats(self) -> int:
        """How many fit seeds were run, on the task that has fewest."""
        return min(len(rows) for rows in self.rows)

    @property
    def trust(self) -> Trust:
        """The lowest level of trust of any of its rows."""
        order = get_args(Trust)
        least: Trust = min((row.record.trust for rows in self.rows for row in rows), key=order.index)
        return least

    @property
    def kept_by_task(self) -> tuple[float | None, ...]:
        """Share of full depth's quality on each task: means over fit seeds."""
        return tuple(
            mean_of(row.record.quality.retained if row.record.quality else None for row in same) for same in self.rows
        )

    @property
    def settings(self) -> str:
        """The parameters in words, where they are the same in all rows; else empty."""
        said = {row.setting for rows in self.rows for row in rows}
        return said.pop() if len(said) == 1 else ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """The remarks of its rows, each once; mostly none."""
        several = len(self.rows) > 1
        lines = [
            f"{row.record.task.name}: {row.remarks}" if several else row.remarks
            for rows in self.rows
            for row in rows
            if row.remarks
        ]
        return tuple(dict.fromkeys(lines))


def build_entry(
    key: SettingKey, rows: tuple[tuple[Row, ...], ...], fulls: Sequence[Row | None], ids: Counter[str], suite: bool
) -> BoardEntry:
    """Return the entry of some rows.

    Args:
        key: what they have in common.
        rows: by task; several of one task are repeats under other seeds.
        fulls: by task, full depth's row, with whose times theirs are compared.
        ids: those given to other entries of the view; counted.
        suite: whether the view takes several tasks together.
    """
    label, budget = key.label, key.budget
    first = rows[0][0]
    stem = formatting.slug(label) or first.record.key[:10]
    stem = stem if budget is None else f"{stem}-{formatting.slug(f'{100 * budget:.6g}')}"
    kept = [mean_of(row.record.quality.retained if row.record.quality else None for row in same) for same in rows]
    retained = fmean([one for one in kept if one is not None]) if None not in kept else None
    single = not suite and len(rows[0]) == 1 and first.record.quality is not None
    quality = first.record.quality
    times = times_of(rows, fulls)
    return BoardEntry(
        id=unique(stem, ids),
        label=label,
        role=first.role,
        budget=budget,
        rows=rows,
        ok=all(row.ok for same in rows for row in same),
        score=None if suite else mean_of(row.record.quality.mean if row.record.quality else None for row in rows[0]),
        retained=retained,
        bounds=quality.retained_ci95 if single and quality and _independent(first) else None,
        costs=costs_of(rows, times),
        times=times,
    )


def _independent(row: Row) -> bool:
    """Return whether a row has enough independent documents for an interval."""
    task = row.record.task
    return min(task.n, task.sources or task.n) >= FEWEST_DOCUMENTS


def record_entry(row: Row, full: Row | None = None) -> BoardEntry:
    """Return one record as an entry of its own, for tables that list records."""
    ((key, rows),) = group_seeds([row]).items()
    return build_entry(key, (rows,), (full,), Counter(), suite=False)


def unique(stem: str, taken: Counter[str]) -> str:
    """Return a name that was not taken before: the stem, or the stem with a number; counted as taken."""
    taken[stem] += 1
    return stem if taken[stem] == 1 else unique(f"{stem}-{taken[stem]}", taken)


def series(entries: Iterable[BoardEntry]) -> dict[str, list[BoardEntry]]:
    """Return entries by label: the settings of one method, in order."""
    by_label: dict[str, list[BoardEntry]] = {}
    for entry in entries:
        by_label.setdefault(entry.label, []).append(entry)
    return by_label


def kind_of(entry: BoardEntry) -> str:
    """Return what the entry is on the board: `full`, `dense`, `method`, `control` or `oracle`."""
    return "control" if entry.control else entry.role


def shown(entry: BoardEntry) -> bool:
    """Return whether charts show it: it reached its budget, and has a cost and a quality."""
    return entry.ok and bool(entry.costs) and (entry.retained is not None or entry.score is not None)


def relative(entries: Sequence[BoardEntry]) -> bool:
    """Return whether charts of these entries show the share of full depth's quality; else they show the metric."""
    return all(entry.retained is not None for entry in entries if shown(entry))
