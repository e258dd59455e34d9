"""A synthetic run as large as the board promises to bear: thousands of records, tens of thousands of samples.

Also a script, to measure with: `python tests/helpers/large_run.py FOLDER [TASKS ROWS DOCUMENTS]`.
"""

import json
import sys
from pathlib import Path

import numpy as np
from record_factory import record, sha

from dlbench.records.schema import write_lines

TEXT = (
    "the house by the river was red and small but warm in winter people came from far away to see its garden every "
    "spring they brought tea bread honey and stories about the mountains beyond the lake where nobody lives"
)
WORDS = TEXT.split()
BUDGETS = (0.25, 0.5, 0.75, 0.9)
DEPTH = 16


def write_large_run(folder: Path, tasks: int = 20, rows: int = 100, documents: int = 25) -> Path:
    """Write records, samples with routes and pieces, and documents: tasks × rows records of so many documents."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples").mkdir(exist_ok=True)
    records, asked = [], []
    for number in range(tasks):
        task = f"task_{number:02}"
        rng = np.random.default_rng(number)
        ids = [f"{task}-test-{place:05}" for place in range(documents)]
        texts = [[str(word) for word in rng.choice(WORDS, 40)] for _ in ids]
        hardness = rng.normal(0, 0.08, documents)
        track = f"{task}/1/full"
        for id_, words in zip(ids, texts, strict=True):
            line = {"track": track, "id": id_, "prompt": "Say it shorter: " + " ".join(words * 3)}
            asked.append(json.dumps(line | {"references": [" ".join(words)]}))
        full = np.clip(0.8 + hardness, 0, 1)
        for name, budget, kept in _settings(rows):
            scores = full if name == "full" else np.clip(full * kept + rng.normal(0, 0.05, documents), 0, 1)
            share = budget or 1.0
            made = record(
                name,
                task=task,
                track=track,
                scores=scores,
                full=full,
                method={"params": {"share": share}, "knob": "share"},
                run={"budget": budget},
                compute={
                    "layer_share": share,
                    "flop_share_decode": 0.06 + 0.94 * share,
                    "flop_share_total": 0.3 + 0.7 * share,
                },
            )
            records.append(made)
            lines = [
                _sample(id_, float(score), words, share, rng)
                for id_, score, words in zip(ids, scores, texts, strict=True)
            ]
            (folder / "samples" / f"{made.key}.jsonl").write_text("\n".join(lines) + "\n")
    write_lines(folder / "records.jsonl", records)
    (folder / "documents.jsonl").write_text("\n".join(asked) + "\n")
    return folder


def _settings(rows):
    yield "full", None, 1.0
    for place in range(rows - 1):
        method, budget = divmod(place, len(BUDGETS))
        kept = BUDGETS[budget] ** (0.2 + 0.05 * method)
        yield f"method_{method:03}", BUDGETS[budget], kept


def _sample(id_, score, words, share, rng):
    output = [word if rng.random() < 0.5 + share / 2 else str(rng.choice(WORDS)) for word in words]
    ran = rng.random((len(words) - 1, DEPTH)) < share
    routes = [["".join("3" if one else "0" for one in row), 1] for row in ran]
    return json.dumps(
        {
            "id": id_,
            "output": " ".join(output),
            "score": score,
            "scores": {},
            "layers": [float(row.sum()) for row in ran],
            "routes": routes,
            "pieces": [f" {word}" for word in output],
            "truncated": False,
            "tokens": {"prompt": 130, "generated": len(words)},
            "flops": {"layers": 10**8, "attention": 10**6, "heads": 10**6, "kv": 0, "router": 0},
            "prompt_flops": 10**8,
            "executed_flops": 10**8,
            "tight": [],
            "choice": None,
        }
    )


if __name__ == "__main__":
    print(write_large_run(Path(sys.argv[1]), *map(int, sys.argv[2:])), sha("large")[:8])
