"""A board: run folders, and what the statistics say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from dlbench.leaderboard.analysis.claims import Claim, claims
from dlbench.leaderboard.analysis.headlines import headlines
from dlbench.leaderboard.analysis.view_stats import Standings, standings
from dlbench.leaderboard.data.run_files import Runs, read_runs
from dlbench.leaderboard.data.tracks import Track
from dlbench.leaderboard.data.views import BoardView, build_views
from dlbench.leaderboard.workers import ALONE, Workers


@dataclass(frozen=True)
class Board:
    """Runs with their statistics: the one source of all that pages, exports and the terminal show.

    Attributes:
        run_dirs: the runs' folders.
        standings: the statistics of every view, by its slug.
    """

    run_dirs: tuple[Path, ...]
    runs: Runs
    views: tuple[BoardView, ...]
    standings: Mapping[str, Standings]

    @property
    def tracks(self) -> tuple[Track, ...]:
        """Rows that may be compared, by task."""
        return self.runs.tracks

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """All comparisons that are made, their p values corrected together."""
        return tuple(claims(self.tracks, self.runs.scores, self.runs.sources))

    def headlines(self, view: BoardView | None = None) -> list[str]:
        """Return what the numbers say, a line per question: on the tasks of a view, or on all of the board."""
        tracks = self.tracks if view is None else view.tracks
        anchors = {track.anchor for track in tracks}
        return headlines(
            [one for one in self.views if not one.suite and one.tracks[0].anchor in anchors],
            self.standings,
            [claim for claim in self.claims if claim.track in anchors],
        )


def read_board(run_dirs: Sequence[Path], workers: Workers = ALONE) -> Board:
    """Read run folders and work out all statistics.

    Args:
        run_dirs: folders of runs.
        workers: take over the views.

    Raises:
        RecordError: a folder holds no records, or bad ones; the message names file and line.
    """
    return board_of(read_runs(run_dirs), run_dirs, workers)


def board_of(runs: Runs, run_dirs: Sequence[Path] = (), workers: Workers = ALONE) -> Board:
    """Work out all statistics of runs that were read.

    Args:
        runs: the runs.
        run_dirs: where they were read.
        workers: take over the views.
    """
    views = build_views(runs.tracks)
    parts = [runs.of(view.keys) for view in views]
    computed = workers.run(
        partial(standings, view, part.scores, part.sources) for view, part in zip(views, parts, strict=True)
    )
    by_view = {view.slug: of_view for view, of_view in zip(views, computed, strict=True)}
    return Board(tuple(run_dirs), runs, tuple(views), by_view)
