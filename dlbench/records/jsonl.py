"""JSON Lines files: every line is checked on reading; a file is written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from dlbench.errors import RecordError
from dlbench.system.files import write_pieces


class Part(BaseModel):
    """A frozen object; unknown fields, NaN and infinite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class GrownPart(Part):
    """A part that was given fields after records were published: these are left out of a file where they are None.

    So a record from before they existed is written with the bytes that it had.
    """

    later: ClassVar[tuple[str, ...]]
    """Names of these fields."""

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return {name: value for name, value in content.items() if value is not None or name not in self.later}


class JsonLine(Part):
    """An object that fills one line of a file, and the limits of such a file."""

    max_line_bytes: ClassVar[int]
    max_lines: ClassVar[int]


Item = TypeVar("Item", bound=JsonLine)


def _fault(error: ValidationError) -> str:
    first, *rest = error.errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(str(part) for part in first["loc"])
    text = f"{where}: {first['msg']}" if where else first["msg"]
    return f"{text} (and {len(rest)} more)" if rest else text


def parse_line(line: bytes, model: type[Item]) -> Item:
    """Check one line.

    Raises:
        ValueError: it is no object of that model; the message says what is wrong, not where.
    """
    if len(line) > model.max_line_bytes:
        raise ValueError(f"longer than {model.max_line_bytes:,} bytes")
    try:
        item = model.model_validate_json(line, strict=True)
    except ValidationError as error:
        raise ValueError(_fault(error)) from None
    if "schema_" in model.model_fields and "schema_" not in item.model_fields_set:
        raise ValueError("schema: Field required")
    return item


def read_lines(path: Path, model: type[Item], parse: Callable[[bytes], Item] | None = None) -> Iterator[Item]:
    """Yield the checked objects of a JSON Lines file, one line in memory at a time.

    Args:
        path: the file.
        model: of its lines.
        parse: checks one line, and raises a ValueError; `parse_line` where it is not given.

    Raises:
        RecordError: the file cannot be read, is too long, or a line is no object of that model.
    """
    try:
        with path.open("rb") as handle:
            number = 0
            # A bounded readline, so that a file of one endless line does not fill the memory.
            while line := handle.readline(model.max_line_bytes + 1):
                number += 1
                if number > model.max_lines:
                    raise RecordError(f"{path}: more than {model.max_lines:,} lines")
                try:
                    whole = line.removesuffix(b"\n")
                    yield parse_line(whole, model) if parse is None else parse(whole)
                except ValueError as error:
                    raise RecordError(f"{path}, line {number}: {error}") from None
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror or error}") from None


def format_line(item: JsonLine) -> str:
    """Format an object as one line of JSON, without a line end; equal objects give equal bytes."""
    return json.dumps(
        item.model_dump(by_alias=True), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def write_lines(path: Path, items: Iterable[JsonLine]) -> None:
    """Write objects one per line, the whole file or nothing.

    Raises:
        RecordError: the file cannot be written.
    """
    write_pieces(path, (format_line(item) + "\n" for item in items))
