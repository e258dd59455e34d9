#!/usr/bin/env python
"""Print a run's results as the Markdown table of the README: `ci/results.py RUN_DIR [BUDGET]`.

One row per method, one column per task: retained quality at one budget with its 95 % interval, † where the budget is
missed. Methods without a budget are shown with the compute that they have.
"""

import argparse
from pathlib import Path

from dlbench.leaderboard.data.run_files import read_runs
from dlbench.leaderboard.data.tracks import Row


def cell(row: Row | None) -> str:
    """Retained quality, its interval and the realised layer share."""
    if row is None or row.record.quality is None or row.record.compute is None:
        return "–"
    quality, share = row.record.quality, row.record.compute.layer_share
    if quality.retained is None or quality.retained_ci95 is None:
        return "–"
    low, high = quality.retained_ci95
    missed = "" if row.record.status == "ok" else " †"
    return f"{quality.retained:.2f} [{low:.2f}, {high:.2f}] at {share:.0%}".replace("%", " %") + missed


def main(run: Path, budget: float) -> None:
    """Print the table."""
    runs = read_runs([run])
    tracks = runs.tracks
    labels: dict[str, dict[str, Row]] = {}
    for track in tracks:
        for row in track.rows:
            if row.record.run.budget in (None, budget):
                labels.setdefault(row.label, {})[track.task.name] = row
    print("| | " + " | ".join(f"{t.task.name} ({t.task.metric})" for t in tracks) + " |")
    print("| --- " * (1 + len(tracks)) + "|")
    fulls = [row for row in labels["full"].values() if row.record.quality]
    means = [f"{row.record.quality.mean:.3f}" for row in fulls if row.record.quality]
    print("| *full, absolute* | " + " | ".join(means) + " |")
    for label, rows in labels.items():
        if label != "full":
            print(f"| {label} | " + " | ".join(cell(rows.get(t.task.name)) for t in tracks) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("budget", type=float, nargs="?", default=0.5, help="share of the layers [0.5]")
    given = parser.parse_args()
    main(given.run, given.budget)
