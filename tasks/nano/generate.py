"""Draw documents of the nano tasks, or write them to a file.

`python -m dlbench.tasks.nano.generate --task nano_math --split test --n 250 --seed 7 --out fresh.jsonl`
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from random import Random

from . import arithmetic, data2text, summary, translation
from .documents import SPLITS, Document

TASKS = {module.NAME: module.draw_one for module in (data2text, summary, arithmetic, translation)}
DATA = Path(__file__).parent / "data"
COMMITTED = {"fit": (400, 1), "test": (250, 2)}
"""How many documents of a split are committed, and the seed they were drawn from."""


def draw(task: str, split: str, n: int, seed: int) -> list[Document]:
    """Draw different documents of one split.

    Args:
        task: A key of `TASKS`.
        split: "train", "fit" or "test".
        n: Number of documents.
        seed: The same seed gives the same documents, and a longer draw begins with the shorter one.

    Raises:
        ValueError: The task or the split is unknown.
    """
    if task not in TASKS:
        raise ValueError(f"unknown nano task {task!r}; choose from {', '.join(TASKS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
    rng = Random(f"{task}/{split}/{seed}")
    found: dict[str, Document] = {}
    while len(found) < n:
        document = TASKS[task](rng, split)
        found.setdefault(document.id, document)
    return list(found.values())


def write(documents: list[Document], path: Path) -> None:
    """Write one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(document), ensure_ascii=False) for document in documents]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(path: Path) -> list[Document]:
    """Read what `write` wrote."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [Document(row["id"], row["input"], tuple(row["references"]), row["difficulty"]) for row in rows]


def committed(task: str, split: str) -> list[Document]:
    """Read the committed documents of a split."""
    return read(DATA / task / f"{split}.jsonl")


def main() -> None:
    """Write the documents asked for, or all the committed ones."""
    parser = argparse.ArgumentParser(description="Draw documents of the nano tasks.")
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--n", type=int, default=250)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--committed", action="store_true", help="write the committed fit and test files again")
    arguments = parser.parse_args()
    if arguments.committed:
        for task in TASKS:
            for split, (n, seed) in COMMITTED.items():
                write(draw(task, split, n, seed), DATA / task / f"{split}.jsonl")
    elif arguments.task and arguments.out:
        write(draw(arguments.task, arguments.split, arguments.n, arguments.seed), arguments.out)
    else:
        parser.error("give --task and --out, or --committed")


if __name__ == "__main__":
    main()
