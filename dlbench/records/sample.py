"""The documents behind a record: samples, prompts, and what is published in their place."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AliasChoices, Field, StringConstraints

from dlbench.records.fields import Count, Extra, Key, Name, Output, Route, Share
from dlbench.records.jsonl import GrownPart, JsonLine
from dlbench.records.record import Flops, Speculation, Tokens


class Scores(JsonLine):
    """The primary scores of one record by document id, for paired statistics without the samples."""

    max_line_bytes: ClassVar[int] = 1 << 24
    max_lines: ClassVar[int] = 100_000

    key: Key
    scores: Annotated[dict[Name, float], Field(max_length=200_000)]


class Usage(JsonLine):
    """Which layers one record ran, over all decode forwards of all its documents.

    Attributes:
        layers: per layer, the share of the forwards that ran it; attention or feed-forward alone counts half. Empty
            where no token was decoded after the prompt, or the samples hold no routes.
        depths: entry n is how many forwards ran n layers, rounded; from none to all of them.
    """

    max_line_bytes: ClassVar[int] = 1 << 20
    max_lines: ClassVar[int] = 100_000

    key: Key
    layers: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(max_length=10_000)]
    depths: Annotated[tuple[Count, ...], Field(max_length=20_001)]


class Asked(JsonLine):
    """One test document: the prompt as the model got it, and the references.

    `source` is a hash of what the document was taken from, such as a passage, where the task names it.
    """

    max_line_bytes: ClassVar[int] = 1 << 23
    max_lines: ClassVar[int] = 2_000_000

    track: Name
    id: Name
    prompt: Output
    references: Annotated[tuple[Output, ...], Field(max_length=1000)]
    source: Key | None = None


class SharedSources(JsonLine):
    """The hashed sources of a track's documents by id, for statistics without the documents."""

    max_line_bytes: ClassVar[int] = 1 << 24
    max_lines: ClassVar[int] = 100_000

    track: Name
    sources: Annotated[dict[Name, Key], Field(max_length=200_000)]


class Sample(GrownPart, JsonLine):
    """One document of one record.

    Attributes:
        id: the task's document id.
        output: generated text; where given answers are scored, the one that the model prefers.
        score: the primary metric; `scores` holds the other per-document metrics.
        answers: of each given answer the log-likelihood, and whether greedy decoding would generate it; scores are
            computed from these. Empty where a text is generated, and in files from before the field existed.
        layers: executed layers of each decode forward; parts of a layer count by their share of its FLOPs. Where given
            answers are scored, of each text that ran for it; `tokens.prompt` then counts the tokens of these texts, and
            `flops` holds all their FLOPs.
        routes: what each decoded token ran when it was new, with the number of consecutive forwards that ran the same;
            these sum to the length of `layers`. Work that a later token made necessary (KV recompute) is in `layers`
            only.
        pieces: text of each generated token, special ones too; empty where they are not kept.
        truncated: whether the prompt was cut to fit.
        flops: credited, decode only; `executed_flops` are the same with padding; `prompt_flops` is the prefill's.
        reread: whether the text was read again, as `generate` does, because it outgrew the original context and its
            rotary angles changed; `prompt_flops` includes the FLOPs of that.
        near_ties: (decode step, margin) where a logit or threshold margin was below 1e-3, so that rounding may decide.
        choice: the candidate that an oracle chose.
        check: checksum of the line and its key, see `dlbench.records.checksum`; None before it existed, and in memory.
    """

    later: ClassVar[tuple[str, ...]] = ("check",)

    max_line_bytes: ClassVar[int] = 1 << 23
    max_lines: ClassVar[int] = 200_000

    id: Name
    output: Output
    score: float
    scores: Extra = Field(default_factory=dict)
    answers: Annotated[tuple[tuple[float, bool], ...], Field(max_length=100_000)] = ()
    layers: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(max_length=1_000_000)]
    routes: Annotated[tuple[tuple[Route, Annotated[int, Field(ge=1)]], ...], Field(max_length=1_000_000)] = ()
    pieces: Annotated[tuple[Annotated[str, StringConstraints(max_length=1000)], ...], Field(max_length=10_000)] = ()
    truncated: bool
    tokens: Tokens
    flops: Flops
    prompt_flops: Count
    executed_flops: Count
    reread: bool = False
    speculation: Speculation | None = None
    near_ties: Annotated[tuple[tuple[Count, float], ...], Field(max_length=1_000_000)] = Field(
        default=(), validation_alias=AliasChoices("tight", "near_ties"), serialization_alias="tight"
    )
    choice: Name | None = None
    check: Key | None = None


class CandidateScore(JsonLine):
    """The score of one candidate (a fixed set of executed layers) on one document."""

    max_line_bytes: ClassVar[int] = 1 << 17
    max_lines: ClassVar[int] = 20_000_000

    id: Name
    candidate: Name
    layers: Annotated[tuple[Annotated[int, Field(ge=0, lt=10_000)], ...], Field(max_length=10_000)]
    share: Share
    score: float
