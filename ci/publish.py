#!/usr/bin/env python
"""Put a run on the public board: `ci/publish RUN_DIR NAME [--trust LEVEL] [--samples]` writes leaderboard/records/NAME.

Records, times, scores, layer usage and which documents share a source always go along. Samples do with --samples: look first whether the task's
documents may be published. --trust is what the maintainers say of the run (self-reported, validated, rerun,
reproduced); what the run says of itself is not asked.
"""

import argparse
import shutil
from pathlib import Path
from typing import get_args

from dlbench.leaderboard.data.run_files import read_runs
from dlbench.records.jsonl import write_lines
from dlbench.records.schema import Scores, SharedSources, Trust


def main(run: Path, name: str, trust: str, samples: bool) -> None:
    """Copy what the board needs."""
    root = Path(__file__).parent.parent
    folder = root / "leaderboard" / "records" / name
    runs = read_runs([run])
    write_lines(folder / "records.jsonl", (record.model_copy(update={"trust": trust}) for record in runs.records))
    write_lines(folder / "scores.jsonl", (Scores(key=k, scores=dict(s)) for k, s in sorted(runs.scores.items())))
    if shared := {track: dict(found) for track, found in sorted(runs.sources.items()) if found}:
        write_lines(folder / "sources.jsonl", (SharedSources(track=t, sources=one) for t, one in shared.items()))
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
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--trust", choices=get_args(Trust), default="self-reported")
    parser.add_argument("--samples", action="store_true")
    given = parser.parse_args()
    main(given.run, given.name, given.trust, given.samples)
