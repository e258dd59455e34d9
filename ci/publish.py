#!/usr/bin/env python
"""Add a run or a submission to the public board: `ci/publish.py RUN_DIR NAME [--badge FILE] [--samples]`.

Writes leaderboard/records/NAME: records, times, scores, layer usage, and which documents share a source (hashed).
Samples are copied with --samples only; check first that the task's documents may be published. How far the run is
trusted is said by the badge that `dlbench validate` or `verify` wrote for this very submission, or, for a run of the
maintainers' own, by --trust (self-reported, validated, rerun, reproduced); the run's own claim is ignored. With
--withdraw REASON the rows of NAME, or those with --key, are marked as withdrawn instead.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import get_args

from dlbench.errors import DlbenchError
from dlbench.leaderboard.data.run_files import read_runs
from dlbench.records.jsonl import read_lines, write_lines
from dlbench.records.schema import Record, Scores, SharedSources, Trust
from dlbench.submission.badge import read_badge
from dlbench.submission.manifest import FILE

RECORDS = Path(__file__).parent.parent / "leaderboard" / "records"


def earned(run: Path, badge: Path) -> str:
    """Return the trust that a badge gives to a submission; the badge is copied beside its records by `main`."""
    given = read_badge(badge)
    if given.submission != json.loads((run / FILE).read_text())["seal"]:
        raise DlbenchError(f"{badge} is the badge of another submission than {run}")
    return given.trust


def withdraw(folder: Path, reason: str, keys: list[str]) -> None:
    """Mark rows of a published run as withdrawn; they stay visible with the reason, and are not ranked."""
    path = folder / "records.jsonl"
    records = list(read_lines(path, Record))
    marked = {r.key for r in records if not keys or r.key in keys}
    given = {"withdrawn": reason}
    write_lines(path, (r.model_copy(update=given) if r.key in marked else r for r in records))
    print(f"{len(marked)} rows of {folder} withdrawn; now: ci/site --update")


def main(run: Path, name: str, trust: str, samples: bool, badge: Path | None = None) -> None:
    """Copy the files that the board needs."""
    folder = RECORDS / name
    if badge is not None:
        trust = earned(run, badge)
    runs = read_runs([run])
    write_lines(folder / "records.jsonl", (record.model_copy(update={"trust": trust}) for record in runs.records))
    write_lines(folder / "scores.jsonl", (Scores(key=k, scores=dict(s)) for k, s in sorted(runs.scores.items())))
    shared = [SharedSources(track=track, sources=dict(of)) for track, of in sorted(runs.sources.items()) if of]
    if shared:
        write_lines(folder / "sources.jsonl", shared)
    write_lines(folder / "usage.jsonl", (usage for _, usage in sorted(runs.usage.items())))
    if (run / "timing.jsonl").is_file():
        shutil.copyfile(run / "timing.jsonl", folder / "timing.jsonl")
    if badge is not None:
        shutil.copyfile(badge, folder / "badge.json")
    if samples:
        (folder / "samples").mkdir(exist_ok=True)
        for key, path in runs.samples.items():
            shutil.copyfile(path, folder / "samples" / f"{key}.jsonl")
        if (run / "documents.jsonl").is_file():
            shutil.copyfile(run / "documents.jsonl", folder / "documents.jsonl")
    print(f"{len(runs.records)} records in {folder}; now: ci/site --update")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="run folder or submission; none with --withdraw")
    parser.add_argument("name", help="name of the folder in leaderboard/records")
    parser.add_argument("--trust", choices=get_args(Trust), default="self-reported")
    parser.add_argument("--badge", type=Path, help="what `dlbench verify` wrote")
    parser.add_argument("--samples", action="store_true")
    parser.add_argument("--withdraw", metavar="REASON")
    parser.add_argument("--key", action="append", default=[], help="only this row; repeatable")
    given = parser.parse_args()
    if given.withdraw is not None:
        withdraw(RECORDS / given.name, given.withdraw, given.key)
    elif given.run is None:
        parser.error("name a run folder")
    else:
        main(given.run, given.name, given.trust, given.samples, given.badge)
