#!/usr/bin/env python
"""Add a run to the public board: `ci/publish.py RUN_DIR NAME [--trust LEVEL] [--samples]`.

Writes leaderboard/records/NAME: records, times, scores, layer usage, and which documents share a source (hashed).
Samples are copied with --samples only; check first that the task's documents may be published. --trust is the
maintainers' judgement of the run (self-reported, validated, rerun, reproduced); the run's own claim is ignored.
"""

import argparse
import shutil
from pathlib import Path
from typing import get_args

from dlbench.leaderboard.data.run_files import read_runs
from dlbench.records.jsonl import write_lines
from dlbench.records.schema import Scores, SharedSources, Trust


def main(run: Path, name: str, trust: str, samples: bool) -> None:
    """Copy the files that the board needs."""
    root = Path(__file__).parent.parent
    folder = root / "leaderboard" / "records" / name
    runs = read_runs([run])
    write_lines(folder / "records.jsonl", (record.model_copy(update={"trust": trust}) for record in runs.records))
    write_lines(folder / "scores.jsonl", (Scores(key=k, scores=dict(s)) for k, s in sorted(runs.scores.items())))
    shared = [SharedSources(track=track, sources=dict(of)) for track, of in sorted(runs.sources.items()) if of]
    if shared:
        write_lines(folder / "sources.jsonl", shared)
    write_lines(folder / "usage.jsonl", (usage for _, usage in sorted(runs.usage.items())))
    if (run / "timing.jsonl").is_file():
        shutil.copyfile(run / "timing.jsonl", folder / "timing.jsonl")
    if samples:
        (folder / "samples").mkdir(exist_ok=True)
        for key, path in runs.samples.items():
            shutil.copyfile(path, folder / "samples" / f"{key}.jsonl")
        if (run / "documents.jsonl").is_file():
            shutil.copyfile(run / "documents.jsonl", folder / "documents.jsonl")
    print(f"{len(runs.records)} records in {folder}; now: ci/site --update")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("name", help="name of the folder in leaderboard/records")
    parser.add_argument("--trust", choices=get_args(Trust), default="self-reported")
    parser.add_argument("--samples", action="store_true")
    given = parser.parse_args()
    main(given.run, given.name, given.trust, given.samples)
