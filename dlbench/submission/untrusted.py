"""Read files that a stranger wrote: bounded, without following links, without running or unpacking anything."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from dlbench.records.jsonl import JsonLine, parse_line
from dlbench.submission.faults import FaultList
from dlbench.submission.manifest import FILE, SAFE_PATH, SCHEMA, Manifest, canonical, seal_of

Item = TypeVar("Item", bound=JsonLine)
MOST_FILES = 20_000
MOST_BYTES = 4 << 30
"""Of all files together."""
MOST_MANIFEST = 64 << 20
MOST_HEADER = 16 << 20
"""Bytes of the header of a safetensors file, and of a fit.json."""
ARCHIVES = {
    b"PK\x03\x04": "zip",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""First bytes of a file → what it is."""


class DuplicateKeyError(ValueError):
    """An object of JSON names one key twice."""


class NotFiniteError(ValueError):
    """JSON with NaN or infinity in it, which JSON does not have."""


def load_json(raw: bytes) -> Any:
    """Parse JSON strictly.

    Raises:
        ValueError: it is no JSON, nested too deeply, not UTF-8, or ambiguous.
    """
    try:
        return json.loads(raw, object_pairs_hook=_unique, parse_constant=_not_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise DuplicateKeyError("an object names one key twice")
    return content


def _not_finite(name: str) -> Any:
    raise NotFiniteError(f"{name} is no number of JSON")


def _code_of(error: ValueError, otherwise: str) -> str:
    if isinstance(error, DuplicateKeyError):
        return "duplicate-key"
    return "not-finite" if isinstance(error, NotFiniteError) else otherwise


def read_manifest(folder: Path, faults: FaultList) -> Manifest | None:
    """Read the manifest; None where nothing more can be checked."""
    path = folder / FILE
    if path.is_symlink() or not path.is_file():
        faults.add("manifest-missing", FILE, "there is no such plain file in the folder")
        return None
    with path.open("rb") as handle:
        raw = handle.read(MOST_MANIFEST + 1)
    if len(raw) > MOST_MANIFEST:
        faults.add("too-large", FILE, f"more than {MOST_MANIFEST:,} bytes")
        return None
    try:
        content = load_json(raw)
        if not isinstance(content, dict):
            raise ValueError("it is no object")
        if _is_of_future(content, SCHEMA):
            faults.add("future-schema", FILE, f"schema {content['schema']!r}, not {SCHEMA!r}")
            return None
        if canonical(content).encode() != raw:
            faults.add("manifest-not-canonical", FILE, "the bytes are not those that dlbench writes for this content")
        if content.get("seal") != seal_of(content):
            faults.add("seal", FILE, "the seal is not the hash of the rest")
        return Manifest.model_validate_json(raw, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        faults.add("manifest-invalid", FILE, f"{where}: {first['msg']}")
    except ValueError as error:
        faults.add(_code_of(error, "manifest-invalid"), FILE, str(error))
    return None


def _is_of_future(content: dict[str, Any], schema: str) -> bool:
    """Whether the object names another release of its schema."""
    named = content.get("schema")
    return isinstance(named, str) and named != schema and named.split("/")[0] == schema.split("/")[0]


def check_files(folder: Path, manifest: Manifest, faults: FaultList) -> set[str]:
    """Check that the folder holds the files of the manifest, no others, and nothing but plain files.

    Returns:
        Paths of the files that are as the manifest says; only these are read.
    """
    listed: dict[str, int] = {}
    folded: set[str] = set()
    for path, packed in manifest.files.items():
        if not SAFE_PATH.fullmatch(path) or path.lower() in folded:
            faults.add("path-unsafe", path, "the manifest lists a path that a submission may not hold")
            continue
        folded.add(path.lower())
        listed[path] = packed.bytes
    if len(listed) > MOST_FILES or sum(listed.values()) > MOST_BYTES:
        faults.add("too-large", FILE, f"more than {MOST_FILES:,} files or {MOST_BYTES:,} bytes")
        return set()
    there = _plain_files(folder, faults)
    for path in sorted(set(there) - set(listed) - {FILE}):
        faults.add("file-extra", path, "the manifest does not list it")
    good = set()
    for path in sorted(listed):
        if path not in there:
            faults.add("file-missing", path, "the manifest lists it")
        elif _is_intact(folder / path, path, there[path], manifest, faults):
            good.add(path)
    return good


def _plain_files(folder: Path, faults: FaultList) -> dict[str, int]:
    """Paths and sizes of the plain files below a folder; links are not followed, archives not opened."""
    sizes: dict[str, int] = {}
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        for entry in os.scandir(place):
            path = Path(entry.path).relative_to(folder).as_posix()
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                waiting.append(Path(entry.path))
            elif not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                faults.add("link", path, "it is no plain file of its own")
            else:
                sizes[path] = status.st_size
                _refuse_archive(Path(entry.path), path, faults)
            if len(sizes) + len(waiting) > 2 * MOST_FILES:
                faults.add("too-large", path, f"more than {MOST_FILES:,} files")
                return sizes
    return sizes


def _refuse_archive(file: Path, path: str, faults: FaultList) -> None:
    with file.open("rb") as handle:
        start = handle.read(300)
    kinds = [kind for mark, kind in ARCHIVES.items() if start.startswith(mark)]
    kinds += ["tar"] if start[257:262] == b"ustar" else []
    if kinds:
        faults.add("archive", path, f"it is a {kinds[0]} archive")


def _is_intact(file: Path, path: str, size: int, manifest: Manifest, faults: FaultList) -> bool:
    packed = manifest.files[path]
    if size != packed.bytes:
        faults.add("file-truncated", path, f"{size:,} bytes, the manifest says {packed.bytes:,}")
        return False
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    if digest != packed.sha256:
        faults.add("file-hash", path, "its sha256 is not the manifest's")
        return False
    return True


def lines(file: Path, where: str, model: type[Item], faults: FaultList) -> Iterator[Item]:
    """Yield the objects of a JSON Lines file, and note a fault for each line that is none."""
    with file.open("rb") as handle:
        number = 0
        while line := handle.readline(model.max_line_bytes + 1):
            number += 1
            here = f"{where}, line {number}"
            if number > model.max_lines or len(line) > model.max_line_bytes:
                faults.add("too-large", here, "more lines, or a longer one, than the file may have")
                return
            if not line.endswith(b"\n"):
                faults.add("cut-line", here, "the line has no end")
            item = _parsed(line.removesuffix(b"\n"), here, model, faults)
            if item is not None:
                yield item


def _parsed(line: bytes, here: str, model: type[Item], faults: FaultList) -> Item | None:
    try:
        content = load_json(line)
        schema = model.model_fields.get("schema_")
        if schema is not None and isinstance(content, dict) and _is_of_future(content, str(schema.default)):
            faults.add("future-schema", here, f"schema {content['schema']!r}, not {schema.default!r}")
            return None
        return parse_line(line, model)
    except ValueError as error:
        not_finite = "finite number" in str(error)
        faults.add(_code_of(error, "not-finite" if not_finite else "line-invalid"), here, str(error))
        return None


_WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_WIDTHS |= dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1)


def weights_sha256(file: Path | None) -> str:
    """Return the hash of weights as a content key has it, read from a safetensors file; None: no weights.

    Raises:
        ValueError: it is no such file, or its tensors do not fill it exactly.
    """
    digest = hashlib.sha256()
    if file is None:
        return digest.hexdigest()
    size = file.stat().st_size
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > min(MOST_HEADER, size - 8):
            raise ValueError("its header is longer than the file, or than a header may be")
        header = load_json(handle.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        tensors = {name: _span(facts) for name, facts in header.items() if name != "__metadata__"}
        spans = sorted(tensors.values())
        ends = [0, *(end for _, end in spans)]
        if [start for start, _ in spans] != ends[:-1] or ends[-1] != size - 8 - length:
            raise ValueError("its tensors overlap, leave gaps, or end elsewhere than the file")
        for name, (start, end) in sorted(tensors.items()):
            digest.update(name.encode("utf-8", "surrogatepass"))
            handle.seek(8 + length + start)
            for at in range(start, end, 1 << 20):
                digest.update(handle.read(min(1 << 20, end - at)))
    return digest.hexdigest()


def _span(facts: Any) -> tuple[int, int]:
    """Where a tensor's bytes begin and end."""
    if not isinstance(facts, dict):
        raise ValueError("a tensor is no object")
    width = _WIDTHS.get(str(facts.get("dtype")))
    shape: Any = facts.get("shape")
    offsets: Any = facts.get("data_offsets")
    if width is None or not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise ValueError("a tensor has no known dtype, shape or place")
    count = width
    for length in shape:
        count *= length
    start, end = offsets
    if end - start != count:
        raise ValueError("a tensor's place does not fit its shape")
    return start, end


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and len(values) <= 16 and all(type(n) is int and 0 <= n < 1 << 60 for n in values)
