"""The manifest of a submission, `submission.json`: files and hashes, what each row is made of, sizes, machine.

submission.json     this manifest, sealed by a hash of itself
records.jsonl       the rows
timing.jsonl        their times
documents.jsonl     prompts and references
samples/<key>.jsonl outputs, scores and routes of each row
fits/<key>/         parameters as JSON and weights as safetensors
code/<method>/      the whole source of each method
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from dlbench.records.fields import Count, Key, Line, Name, Sha256
from dlbench.records.jsonl import Part
from dlbench.records.record import Hardware
from dlbench.submission.layer_costs import LayerCosts

FILE = "submission.json"
SCHEMA = "dlbench.submission/1"
SAFE_PATH = re.compile(
    r"records\.jsonl|timing\.jsonl|documents\.jsonl"
    r"|samples/[0-9a-f]{16,64}\.jsonl"
    r"|fits/[0-9a-f]{16,64}/(fit\.json|weights\.safetensors)"
    r"|code/[A-Za-z0-9_]{1,100}(/(?!\.)[A-Za-z0-9_.-]{1,100}){1,10}"
)
"""All paths that a submission may hold beside its manifest."""
_Path = Annotated[str, Field(max_length=1200)]


class PackedFile(Part):
    """One file of the submission."""

    bytes: Count
    sha256: Sha256


class CodeFile(Part):
    """One file of a method's source: its label in the hash of the source, and where it lies."""

    label: Line
    path: _Path


class MethodCode(Part):
    """The whole source of a method, as `dlbench.registry.provenance` hashes it.

    Attributes:
        origin: "built-in", "file", or the distribution that brings the method.
        entry: the file that defines it.
        files: all that its hash covers.
        releases: other distributions that it imports, with their releases.
        class_name: the method's class, where an entry point names it.
    """

    origin: Name
    entry: _Path
    files: Annotated[tuple[CodeFile, ...], Field(min_length=1, max_length=2000)]
    releases: Annotated[tuple[Line, ...], Field(max_length=1000)] = ()
    class_name: Name | None = None


class RowContent(Part):
    """What a row is made of.

    Attributes:
        method: the name under which `code` has its source.
        content: all that its content key is a hash of.
        fit: folder of its fitted artifact, where it has one.
    """

    method: Name
    content: Annotated[dict[Name, JsonValue], Field(max_length=64)]
    fit: _Path | None = None


class ThinkingMarks(Part):
    """How the model marks its thinking, see `dlbench.data.thinking.Thinking`."""

    start: Line
    end: Line
    special: Annotated[tuple[Count, ...], Field(max_length=100)] = ()


class TrackFacts(Part):
    """What the documents of a track depend on beside the task."""

    task: Name
    chat: bool
    """Whether prompts are in the model's chat template; they are then taken from documents.jsonl."""
    thinking: ThinkingMarks | None = None
    fewshot: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """Few-shot examples, where the run asked for another number than the task's."""
    max_new_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Likewise."""


class Manifest(Part):
    """The manifest.

    Attributes:
        official: whether the run followed the official protocol.
        author: who submits.
        created: when it was packed, in UTC.
        isolation: how methods were kept apart from the harness while they ran.
        options: of the run, as in run.json.
        files: by path.
        code: by method.
        rows: by content key.
        costs: by the hash of the backbone.
        tracks: by name.
        seal: sha256 of the manifest without its seal; names the submission.
    """

    schema_: Literal["dlbench.submission/1"] = Field(alias="schema")
    dlbench: Line
    protocol: Count
    official: bool
    author: Line
    created: Line
    isolation: Line
    hardware: Hardware
    options: Annotated[dict[Name, JsonValue], Field(max_length=200)]
    files: Annotated[dict[_Path, PackedFile], Field(max_length=50_000)]
    code: Annotated[dict[Name, MethodCode], Field(max_length=1000)]
    rows: Annotated[dict[Key, RowContent], Field(max_length=20_000)]
    costs: Annotated[dict[Sha256, LayerCosts], Field(max_length=1000)]
    tracks: Annotated[dict[Name, TrackFacts], Field(max_length=1000)]
    seal: Sha256


def canonical(content: Any) -> str:
    """Return the one way in which a manifest is written."""
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def seal_of(content: Mapping[str, Any]) -> str:
    """Return the seal of a manifest: sha256 over all of it but the seal."""
    unsealed = {name: value for name, value in content.items() if name != "seal"}
    return hashlib.sha256(canonical(unsealed).encode()).hexdigest()
