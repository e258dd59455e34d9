"""Local mirrors: a task's data as JSON Lines, `DIR/<name>/<split>.jsonl`, in place of the hub.

A line is a document, `{"input": …, "references": […]}` with an optional `id` and `source`, or an unchanged row of the
hub's dataset. For mirrors that `dlbench prefetch` made, a lock file beside them records the revision and the hash of
every file. Errors name file and line.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.data.document import no_text
from dlbench.errors import DlbenchError

if TYPE_CHECKING:
    from datasets import Dataset

LOCK = "dlbench.lock.json"
LINE = "dlbench_line"
"""Column that holds a document's line in its file, from 1."""
_REVISION = re.compile(r"@([0-9a-f]{40})(?:/|$)")

LONGEST = 1 << 24
"""Bytes of the longest line of a file of documents."""


@dataclass(frozen=True)
class Mirror:
    """The mirror of one dataset."""

    folder: Path

    def split(self, name: str) -> Path:
        """The file of a split.

        Raises:
            DlbenchError: there is none; the message lists those that exist.
        """
        path = self.folder / f"{name}.jsonl"
        if not path.is_file():
            there = sorted(p.name for p in self.folder.glob("*.jsonl"))
            raise DlbenchError(f"no split {name!r} in {self.folder}: it holds {', '.join(there) or 'no .jsonl file'}")
        if not path.resolve().is_relative_to(self.folder.resolve().parent):
            raise DlbenchError(f"{path} is a link out of its mirror, to {path.resolve()}: put the file itself there")
        return path

    def holds_documents(self) -> bool:
        """Whether the lines are documents, not rows of the hub's dataset; the first line decides."""
        first = next(iter(sorted(self.folder.glob("*.jsonl"))), None)
        if first is None:
            return False
        line = next(_lines(first), None)
        return line is not None and {"input", "references"} <= line[1].keys()

    @property
    def revision(self) -> str | None:
        """The hub's commit that the mirror was made from; None where the lock file does not record it."""
        kept = read_lock(self.folder.parent).get(self.folder.name, {})
        return str(kept["revision"]) if kept.get("revision") else None


class MirrorSplits(Mapping[str, "Dataset"]):
    """The splits of a mirror as lm-eval expects them, read when they are used."""

    def __init__(self, mirror: Mirror, columns: Any = None) -> None:
        """Wrap a mirror.

        Args:
            mirror: where the files are.
            columns: turns a document into a row of the hub's dataset; None leaves lines as they are.
        """
        self._mirror, self._columns = mirror, columns
        self._read = functools.cache(self._load)

    def __getitem__(self, name: str) -> Dataset:
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(p.stem for p in self._mirror.folder.glob("*.jsonl")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _load(self, name: str) -> Dataset:
        from datasets import Dataset

        path = self._mirror.split(name)
        _verify(path)
        if not self._mirror.holds_documents():
            rows = [row for _, row in _lines(path)]
        else:
            rows = read_documents(path)
            if self._columns is not None:
                rows = [self._columns(row) for row in rows]
        if not rows:
            raise DlbenchError(f"{path} is empty")
        return Dataset.from_list(rows)


def names(task: str, dataset: str, config: str | None, metadata: Mapping[str, Any] | None) -> list[str]:
    """Names of the folders that may hold a task's data; `dlbench prefetch` writes the first.

    Args:
        task: the task's name.
        dataset: name of the dataset on the hub, such as "openai/gsm8k".
        config: the dataset's configuration.
        metadata: the task's; `mirror` names the folder, so that tasks with the same data share one.
    """
    if own := (metadata or {}).get("mirror"):
        return [str(own)]
    hub = dataset.rpartition("/")[2]
    return list(dict.fromkeys([task, f"{hub}/{config}" if config else hub]))


def find(data_dir: str | None, names: Sequence[str]) -> Mirror | None:
    """The first of these folders that exists, as a mirror; None where there is none."""
    if data_dir is None:
        return None
    root = Path(data_dir).expanduser()
    return next((Mirror(root / name) for name in names if (root / name).is_dir()), None)


def read_documents(path: Path) -> list[dict[str, Any]]:
    """Read a file of documents: `input`, `references` and the line number, and `id` and `source` where given.

    Raises:
        DlbenchError: a line is not a document, an id is missing or occurs twice, a source is no text, or the file is
            empty.
    """
    documents: list[dict[str, Any]] = []
    ids: dict[str, int] = {}
    sources: dict[int, str] = {}
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        text, references = line.get("input"), line.get("references")
        if not isinstance(text, str) or not text.strip():
            raise DlbenchError(f'{where}: "input" must be a text that is not empty')
        if not isinstance(references, list) or not references:
            raise DlbenchError(f'{where}: "references" must be a list with at least one text')
        if not all(isinstance(r, str) and r.strip() for r in references):
            raise DlbenchError(f'{where}: every one of "references" must be a text that is not empty')
        document: dict[str, Any] = {"input": text, "references": references, LINE: number}
        if "id" in line:
            document["id"] = name = str(line["id"])
            if name in ids:
                raise DlbenchError(
                    f"{where}: the id {name!r} is that of line {ids[name]}; every document needs its own"
                )
            ids[name] = number
        if (source := line.get("source")) is not None:
            if not isinstance(source, str | int) or isinstance(source, bool) or not str(source).strip():
                raise DlbenchError(
                    f'{where}: "source" must be a text that is not empty: what the document is taken from'
                )
            sources[len(documents)] = str(source)
        if documents and ("id" in document) != ("id" in documents[0]):
            raise DlbenchError(f"{where}: either every document has an id, or none")
        documents.append(document)
    if not documents:
        raise DlbenchError(f'{path} is empty: give lines of {{"input": …, "references": […]}}')
    if sources:  # `datasets` takes the columns from the first document
        documents = [{**document, "source": sources.get(place)} for place, document in enumerate(documents)]
    return documents


def read_lock(data_dir: Path) -> dict[str, Any]:
    """Read the lock file of a folder of mirrors: mirror's name → entry; empty where there is no lock file.

    Raises:
        DlbenchError: it is damaged.
    """
    path = data_dir / LOCK
    if not path.is_file():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["mirrors"]
        return dict(kept)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DlbenchError(f"{path} is damaged ({type(error).__name__}): make the mirrors again") from error


def hub_revision(dataset: Mapping[str, Any]) -> str | None:
    """The hub's commit that splits were loaded from, taken from the files' addresses; None if unknown."""
    for split in dataset.values():
        for address in getattr(split.info, "download_checksums", None) or {}:
            if match := _REVISION.search(str(address)):
                return match.group(1)
    return None


def sha256(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(path: Path) -> None:
    kept = read_lock(path.parent.parent).get(path.parent.name, {}).get("splits", {}).get(path.stem)
    if kept is not None and kept.get("sha256") != sha256(path):
        raise DlbenchError(
            f"{path} is not what {LOCK} says: it was changed after it was made; make it again by `dlbench prefetch`, "
            "or remove its entry from the lock file"
        )


def _no_text(value: Any) -> str | None:
    """The first fault that `no_text` finds in the texts of a JSON value; None where there is none."""
    if isinstance(value, str):
        return no_text(value)
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next(filter(None, map(_no_text, inner)), None)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON Lines file with their line numbers; blank lines are skipped.

    Raises:
        DlbenchError: the file cannot be read, or a line is no JSON object.
    """
    try:
        with path.open("rb") as file:
            # A bounded readline, so that a file of one endless line does not fill the memory.
            for number, raw in enumerate(iter(lambda: file.readline(LONGEST + 1), b""), start=1):
                if len(raw) > LONGEST:
                    raise DlbenchError(f"{path}, line {number}: longer than {LONGEST:,} bytes, so it is no document")
                if not raw.strip():
                    continue
                try:
                    line = json.loads(raw.decode("utf-8-sig"))
                except UnicodeDecodeError:
                    raise DlbenchError(f"{path}, line {number}: not UTF-8") from None
                except json.JSONDecodeError as error:
                    fault = f"{error.msg} at column {error.colno}"
                    raise DlbenchError(f"{path}, line {number}: not JSON: {fault}") from None
                if not isinstance(line, dict):
                    raise DlbenchError(f"{path}, line {number}: not an object, but {type(line).__name__}")
                if b"\\u" in raw and (held := _no_text(line)) is not None:
                    raise DlbenchError(f"{path}, line {number}: holds {held}")
                yield number, line
    except OSError as error:
        raise DlbenchError(f"{path} cannot be read: {error.strerror or error}") from None
