"""What the columns of rows read: one method at one budget, or one record, with the statistics of its view."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dlbench import stats
from dlbench.leaderboard.analysis.enough import Enough
from dlbench.leaderboard.analysis.method_stats import Summary
from dlbench.leaderboard.analysis.ranking import RankedPlace
from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.data.entries import BoardEntry, record_entry
from dlbench.leaderboard.data.tracks import Row, Track
from dlbench.leaderboard.data.views import BoardView
from dlbench.records.schema import Record

_ALONE = Standings()


@dataclass(frozen=True, slots=True)
class RowLine:
    """A line of a table of rows: an entry of a view, or one record, with the statistics of the view.

    Attributes:
        entry: what the line shows.
        setting: of one record, the entry of the view to which it belongs, with all its fit seeds; ranks and the like
            are those of the entry.
    """

    entry: BoardEntry
    track: Track
    standings: Standings = _ALONE
    setting: BoardEntry | None = None

    @property
    def record(self) -> Record:
        """One of its records, for what they have in common."""
        return self.entry.first.record

    @property
    def place(self) -> RankedPlace | None:
        """Its rank among the rows of its budget."""
        return self.standings.places.get((self.setting or self.entry).id)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """95 % interval of the quality kept: of one record, its own."""
        return self.entry.bounds if self.setting else self.standings.bounds_of(self.entry)

    @property
    def front(self) -> tuple[bool, float | None] | None:
        """Whether it is on the front as measured, and how likely it is; None where it cannot be."""
        return self.standings.fronts.get((self.setting or self.entry).id)

    @property
    def summary(self) -> Summary | None:
        """Its method over all budgets, of methods and controls."""
        label = self.entry.label
        return next((one for one in self.standings.summaries if one.label == label), None)

    @property
    def enough(self) -> Enough | None:
        """The cheapest setting of its method that surely keeps 95 % of full depth's quality."""
        return None if self.summary is None else self.summary.enough.get(0.95)

    @property
    def gap(self) -> stats.Interval | None:
        """The share of the gap to the honest oracle that its method closes at its budget."""
        gaps = {} if self.summary is None else self.summary.gaps
        return None if self.entry.budget is None else gaps.get(self.entry.budget)


def entry_lines(view: BoardView, entries: Iterable[BoardEntry], standings: Standings = _ALONE) -> list[RowLine]:
    """Return the lines of entries of a view."""
    return [RowLine(entry, view.tracks[0], standings) for entry in entries]


def record_line(row: Row, track: Track) -> RowLine:
    """Return the line of one record, without statistics."""
    return RowLine(record_entry(row, track.first("full")), track)


def record_lines(view: BoardView, standings: Standings) -> list[RowLine]:
    """Return the lines of all records of a view of one task, in the order of its track."""
    (track,) = view.tracks
    settings = {row.anchor: entry for entry in view.entries for rows in entry.rows for row in rows}
    return [
        RowLine(record_entry(row, track.first("full")), track, standings, settings[row.anchor]) for row in track.rows
    ]
