"""Read a task's documents from the JSON Lines files that ship with its suite.

The YAML of a task names `read` as its dataset, since lm-eval resolves paths in YAML against the working directory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("fit", "test")
_HERE = Path(__file__).parent


def read(folder: str, **_: Any) -> dict[str, Dataset]:
    """Read both splits of a task.

    Args:
        folder: holds `fit.jsonl` and `test.jsonl`; relative to the folder of the suites, or absolute.
        **_: the task's metadata, which lm-eval passes along.

    Returns:
        The splits by name, their documents in the order of the file.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a line is not a document; the message names file and line.
    """
    from datasets import Dataset

    return {split: Dataset.from_list(_documents(_HERE / folder / f"{split}.jsonl")) for split in SPLITS}


def _documents(path: Path) -> list[dict[str, Any]]:
    documents = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                document = json.loads(line)
                documents.append(
                    {
                        "id": str(document["id"]),
                        "input": str(document["input"]),
                        "references": [str(reference) for reference in document["references"]],
                        "difficulty": int(document["difficulty"]),
                    }
                )
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: not a document ({type(error).__name__}: {error})") from error
    if not documents:
        raise ValueError(f"{path}: no documents")
    return documents
