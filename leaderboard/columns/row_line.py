"""What the columns of rows read: one method at one budget with its statistics, or one record alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dlbench.leaderboard.analysis.ranking import RankedPlace
from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.data.tracks import Row, Track
from dlbench.leaderboard.data.views import BoardEntry, BoardView, record_entry
from dlbench.records.schema import Record

_ALONE = Standings()


@dataclass(frozen=True, slots=True)
class RowLine:
    """A line of a table of rows: an entry of a view with its statistics, or one record, which has none."""

    entry: BoardEntry
    track: Track
    standings: Standings = _ALONE

    @property
    def record(self) -> Record:
        """One of its records, for what they have in common."""
        return self.entry.first.record

    @property
    def place(self) -> RankedPlace | None:
        """Its rank among the rows of its budget."""
        return self.standings.places.get(self.entry.id)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """95 % interval of the quality kept."""
        return self.entry.bounds or self.standings.bounds.get(self.entry.id)

    @property
    def front(self) -> tuple[bool, float | None] | None:
        """Whether it is on the front as measured, and how likely it is; None where it cannot be."""
        return self.standings.fronts.get(self.entry.id)


def entry_lines(view: BoardView, entries: Iterable[BoardEntry], standings: Standings = _ALONE) -> list[RowLine]:
    """Return the lines of entries of a view."""
    return [RowLine(entry, view.tracks[0], standings) for entry in entries]


def record_line(row: Row, track: Track) -> RowLine:
    """Return the line of one record."""
    return RowLine(record_entry(row), track)
