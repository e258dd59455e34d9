"""A board: run folders, and what the statistics say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dlbench.leaderboard.analysis.view_stats import Standings, standings
from dlbench.leaderboard.data.run_files import Runs, read_runs
from dlbench.leaderboard.data.tracks import Track, build_tracks
from dlbench.leaderboard.data.views import BoardView, build_views
from dlbench.leaderboard.workers import ALONE, Workers


@dataclass(frozen=True, slots=True)
class Board:
    """Runs, and what was found out about them.

    Attributes:
        run_dirs: the runs' folders.
        standings: the statistics of every view, by its slug.
    """

    run_dirs: tuple[Path, ...]
    runs: Runs
    tracks: tuple[Track, ...]
    views: tuple[BoardView, ...]
    standings: Mapping[str, Standings]


def read_board(run_dirs: Sequence[Path], workers: Workers = ALONE) -> Board:
    """Read run folders and work out all statistics.

    Args:
        run_dirs: folders of runs.
        workers: take over the views.

    Raises:
        RecordError: a folder holds no records, or bad ones; the message names file and line.
    """
    runs = read_runs(run_dirs)
    tracks = build_tracks(runs.records, runs.timings)
    views = build_views(tracks)
    mine = [runs.of(view.keys) for view in views]
    found = workers.run(
        partial(standings, view, some.scores, some.sources) for view, some in zip(views, mine, strict=True)
    )
    by_view = {view.slug: one for view, one in zip(views, found, strict=True)}
    return Board(tuple(run_dirs), runs, tuple(tracks), tuple(views), by_view)
