"""A file of documents as a task: `file:PATH.jsonl`, with lines `{"input": …, "references": […]}`.

A line may have an `id`, and a `source` where several documents were taken from the same text.

All documents are scored but for a fifth, chosen by hash, that methods are fitted on. Where PATH is a folder, methods
are fitted on its `train.jsonl` or `validation.jsonl`, and all of `test.jsonl` is scored.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.data.mirrors import Mirror, MirrorSplits, read_documents
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.tasks import metrics

if TYPE_CHECKING:
    from datasets import Dataset

LIMIT = 128
"""Most new tokens, without --max-new-tokens."""
TEMPLATE = "{input}"
_SPLITS = {"train": "training_split", "validation": "validation_split", "test": "test_split"}


def name(task: str) -> str:
    """The task's name in records: `file:` and the name of the file or folder, so that it is unlike any other task's.

    Raises:
        DlbenchError: there is no such file.
    """
    return f"file:{place(task).name.removesuffix('.jsonl')}"


def place(task: str) -> Path:
    """The file or folder behind `file:PATH`.

    Raises:
        DlbenchError: there is none, or it is no `.jsonl` file.
    """
    given = task.removeprefix("file:")
    path = Path(given).expanduser().resolve()
    if not path.name.isprintable():
        raise DlbenchError(
            f"file {path.name!r}: a task has the name of its file, and this one holds invisible characters"
        )
    if path.is_dir():
        Mirror(path).split("test")
    elif not path.is_file() or path.suffix != ".jsonl":
        raise DlbenchError(f"no file {given}: give a .jsonl file of documents, or a folder with test.jsonl")
    return path


def config(task: str, sources: Sources) -> dict[str, Any]:
    """The file as the configuration of an lm-eval task.

    Raises:
        DlbenchError: there is no such file.
    """
    path = place(task)
    chosen = metrics.of_files()[sources.metric or metrics.DEFAULT]
    # A shell does not turn \n into a new line.
    template = (sources.template or TEMPLATE).replace("\\n", "\n")
    splits = [s for s in _SPLITS if path.is_dir() and (path / f"{s}.jsonl").is_file()] or ["test"]
    listed = [
        {"metric": value.name, "aggregation": value.corpus or "mean", "higher_is_better": True}
        for value in chosen.values
    ]
    return {
        "task": name(task),
        "custom_dataset": functools.partial(_load, path),
        **{_SPLITS[split]: split for split in splits},
        "output_type": "generate_until",
        "doc_to_text": functools.partial(_fill, template),
        "doc_to_target": "references",
        "process_results": chosen.score,
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": LIMIT, "do_sample": False},
        "filter_list": [
            {"name": "stripped", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
        ],
        "num_fewshot": 0,
        "metric_list": listed,
        # The content key contains the documents, with their prompts, and the version, but not the metric.
        "metadata": {"version": f"1 {chosen.values[0].name}", "chat": True, "source": _source},
    }


def _load(path: Path, **_: Any) -> Mapping[str, Dataset]:
    if path.is_dir():
        return MirrorSplits(Mirror(path))
    from datasets import Dataset

    return {"test": Dataset.from_list(read_documents(path))}


def _source(doc: Mapping[str, Any]) -> str | None:
    return doc.get("source")


def _fill(template: str, doc: Mapping[str, Any]) -> str:
    return template.replace("{input}", doc["input"])
