"""The records dlbench writes and reads: one JSON object per line, typed, versioned, limited in size.

Records travel: they are published, sent in and shown on a page, so what is read from a file is untrusted. Reading is
strict (no "3" for 3, no unknown field, no NaN, no endless string); in Python, lists may stand for tuples.

    records.jsonl          `Record`     quality and compute of one method at one budget on one task
    timing.jsonl           `Timing`     seconds, kept apart because they belong to a machine
    samples/<key>.jsonl    `Sample`     one document of one record
    documents.jsonl        `Asked`      what each test document asked, and the references
    scores.jsonl           `Scores`     the scores alone, where the samples are not published
    sources.jsonl          `SharedSources`  which documents share a source, where the documents are not published
    usage.jsonl            `Usage`      which layers ran how often, where the samples are not published
    *candidate*.jsonl      `Candidate`  one fixed set of layers an oracle may choose for one document
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, AliasChoices, Field, StringConstraints, model_validator

from dlbench.records.jsonl import JsonLine, Part, RecordError, parse_line, read_lines, write_lines

__all__ = [
    "Asked",
    "BackboneInfo",
    "Candidate",
    "Compute",
    "Fit",
    "Flops",
    "MethodUsed",
    "Quality",
    "Record",
    "RecordError",
    "Run",
    "Sample",
    "Scores",
    "SharedSources",
    "Speculation",
    "Task",
    "Timing",
    "Tokens",
    "Trust",
    "Usage",
    "parse_line",
    "read_lines",
    "write_lines",
]


def _printable(text: str) -> str:
    # Control and bidirectional characters can make a name look like another one, in a terminal and on a page.
    if not text.isprintable():
        raise ValueError("holds control or invisible characters")
    return text


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the lower bound is above the upper one")
    return bounds


Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)]
Line = Annotated[str, StringConstraints(max_length=500), AfterValidator(_printable)]
Output = Annotated[str, StringConstraints(max_length=1_000_000)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16,64}$")]
Count = Annotated[int, Field(ge=0, le=10**24)]
Share = Annotated[float, Field(ge=0, le=1000)]
"""1 is full depth; more is possible (a checked exit head, a layer run twice, longer outputs)."""
Milliseconds = Annotated[float, Field(ge=0)]
Bounds = Annotated[tuple[float, float], AfterValidator(_ordered)]
Budget = Annotated[float, Field(gt=0, le=1)]
Scalar = bool | int | float | Line | None
Params = Annotated[
    dict[Name, Scalar | Annotated[tuple[Scalar, ...], Field(max_length=4096)]],
    Field(max_length=64),
]
Extra = Annotated[dict[Name, float], Field(max_length=64)]
Route = Annotated[str, StringConstraints(pattern=r"^[0-3]{1,10000}$")]
"""What one token did, a digit per layer: 0 passed by, 1 attention only, 2 feed-forward only, 3 ran."""
Trust = Literal["self-reported", "validated", "rerun", "reproduced"]
"""Who stands for a row. Its author alone; a maintainer who checked the files; a maintainer who ran it again and got the
same; somebody else who did. It is set by who publishes a record, not by who sends it in."""


class BackboneInfo(Part):
    """The model that ran; `base_sha256` is the model that it was made from or is compared with, else its own hash."""

    name: Name
    family: Name
    layers: Annotated[int, Field(ge=1, le=10_000)]
    dtype: Name
    sha256: Sha256
    base_sha256: Sha256


class MethodUsed(Part):
    """The routing method, its parameters as they ran, and the one among them (if any) that was tuned to the budget.

    `source_sha256` is over its code, see `dlbench.evaluation.settings.source_sha256`.
    `scope` tells for how long a decision holds; files written before it was kept say "token". Where it is another, a
    token never comes back to a layer that it left out, and all kv policies are one.
    """

    name: Name
    params: Params
    source_sha256: Sha256
    deployable: bool
    kind: Name
    knob: Name | None = None
    scope: Literal["static", "sequence", "token"] = "token"


class Task(Part):
    """What was asked.

    Attributes:
        metric: the per-document metric behind `quality.mean`.
        n: documents.
        truncated: those of them whose prompt was cut to fit the model's context, or a limit that the task sets.
        with_bos: those of them whose prompt begins with a begin-of-text token (none begins with two); None in
            files that were written before this was counted.
        of: documents of the scored split; None in files that were written before this was kept, as `drawn` then is.
        drawn: which of them were taken: all, a sample by the hash of their ids, or the first ones.
        sources: how many sources (passages, subjects) they come from, where some share one; intervals resample these.
        fit_split: what methods were fitted on; a fifth of the scored split stands apart where there is no other.
        fit_overlap: documents that methods would have been fitted on, had they not been scored too.
        signature: how the metrics are computed, with the libraries and their releases.
        chance: score of a blind guess, which `retained` leaves out of both sides.
        chat_template: sha256 of the chat template that the prompts stand in; None where they stand in none.
        think_end_token: what ends the thinking before an answer, up to which nothing is scored; None where all is.
    """

    name: Name
    version: Name
    metric: Name
    n: Annotated[int, Field(ge=1, le=10_000_000)]
    truncated: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    with_bos: Annotated[int, Field(ge=0, le=10_000_000)] | None = Field(
        default=None, validation_alias=AliasChoices("begun", "with_bos"), serialization_alias="begun"
    )
    of: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    drawn: Literal["all", "sample", "first"] | None = None
    sources: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    fit_split: Line = ""
    fit_overlap: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    signature: Line = ""
    chance: Annotated[float, Field(ge=0, le=1)] = 0.0
    chat_template: Sha256 | None = None
    think_end_token: Line | None = None


class Run(Part):
    """The settings of the run.

    `budget` is the target layer share, None where nothing was aimed at; `max_new_tokens` is 0 where answers are weighed
    and nothing is written.
    """

    budget: Budget | None
    prompt: Literal["full", "routed"]
    kv: Name
    seed: Annotated[int, Field(ge=0, lt=2**64)]
    max_new_tokens: Annotated[int, Field(ge=0, le=10_000_000)]


class Fit(Part):
    """How a method was fitted: apart from inference, on documents that are not tested.

    Attributes:
        seed: of the fit; rows that differ in it alone are repeats of one method.
        target: layer share aimed at, None where nothing was.
        realised: layer share of the documents that the knob was tuned on.
        learnt_from, tuned_on: documents.
        tokens: went through the backbone, forward, to learn and to tune.
        learnt: parameters that the fit set, the knob apart; they tell no variants of a method.
    """

    seed: Annotated[int, Field(ge=0, lt=2**64)]
    target: Budget | None = None
    realised: Share | None = None
    learnt_from: Count = 0
    tuned_on: Count = 0
    tokens: Count = 0
    learnt: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()


class Quality(Part):
    """Scores over the documents of the task.

    `full_mean` and `retained` are against the base backbone's `full` on the same documents under the same scoring; None
    where that has not run, `retained` also where it is not above chance. `corpus` is the corpus-level figure of the
    task's first metric that has one. `extra` holds the means of the other metrics and the other corpus figures by name,
    and

        worst_decile            mean score of the worst tenth of the documents
        length_ratio_reference  characters written over those of the references nearest in length
        length_ratio_full       characters written over those that full depth wrote
        repetition              share of word 4-grams that have stood in the text before, a mean over documents
    """

    mean: float
    corpus: float | None = None
    full_mean: float | None = None
    retained: float | None = None
    retained_ci95: Bounds | None = None
    extra: Extra = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.retained is not None and not self.full_mean:
            raise ValueError("retained needs a full_mean other than 0")
        if self.retained_ci95 is not None and self.retained is None:
            raise ValueError("retained_ci95 needs retained")
        return self


class Flops(Part):
    """Where credited FLOPs went."""

    layers: Count
    attention: Count
    heads: Count
    kv: Count
    router: Count

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.layers + self.attention + self.heads + self.kv + self.router


class Tokens(Part):
    """Tokens, summed over whatever the owner covers."""

    prompt: Count
    generated: Count


class Speculation(Part):
    """The account of self-speculation: tokens drafted, drafts that full depth agreed with, rounds of verification."""

    drafted: Count
    accepted: Count
    rounds: Count


class Compute(Part):
    """Realised cost: FLOPs and tokens are sums over documents, shares are of full depth (1).

    `flops` are credited (true context) and `executed_flops` executed (padding and hidden keys included), both of
    decoding; a gap that neither padding nor the policy `evict` explains is a fault. `flop_share_total` counts the
    prompts too.
    """

    layer_share: Share
    flop_share_decode: Share
    flop_share_total: Share
    flops: Flops
    executed_flops: Count
    tokens: Tokens
    speculation: Speculation | None = None


class Record(JsonLine):
    """Quality and compute of one method at one budget on one task.

    With `status` "unreachable" the budget is missed: no parameter reaches it, or the one that did where it was tuned
    does not here. `quality` and `compute` then describe the closest setting that was found, or are both None where
    nothing was run. With "ok" both are there.
    """

    max_line_bytes: ClassVar[int] = 1 << 18
    max_lines: ClassVar[int] = 100_000

    schema_: Literal["dlbench.record/1"] = Field(default="dlbench.record/1", alias="schema")
    key: Key
    track: Name
    backbone: BackboneInfo
    method: MethodUsed
    task: Task
    run: Run
    quality: Quality | None
    compute: Compute | None
    status: Literal["ok", "unreachable"] = "ok"
    fit: Fit | None = None
    trust: Trust = "self-reported"
    notes: Annotated[tuple[Line, ...], Field(max_length=64)] = ()
    env: Annotated[dict[Name, Line], Field(max_length=64)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.quality is None) != (self.compute is None):
            raise ValueError("quality and compute come together")
        if self.status == "ok" and self.quality is None:
            raise ValueError('status "ok" needs quality and compute')
        return self


class Timing(JsonLine):
    """Seconds of one record's setting at one batch size, on one machine.

    `speedup` is full's decode time per token over this one's, interleaved in the same process; `spread` is the
    interquartile range of the repeats over their median. `kernels` says what ran the layers: "stock", the model's own,
    "fused", or "captured", fused ones as graphs of a GPU.
    """

    max_line_bytes: ClassVar[int] = 1 << 14
    max_lines: ClassVar[int] = 200_000

    schema_: Literal["dlbench.timing/1"] = Field(default="dlbench.timing/1", alias="schema")
    key: Key
    method: Name
    task: Name
    budget: Budget | None
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    device: Name
    threads: Annotated[int, Field(ge=0, le=100_000)]
    decode_ms_per_token: Milliseconds
    ms_per_document: Milliseconds
    prefill_ms_per_document: Milliseconds
    speedup: Annotated[float, Field(gt=0)] | None
    spread: Annotated[float, Field(ge=0)] | None
    repeats: Annotated[int, Field(ge=1, le=1_000_000)]
    kernels: Name = "stock"


class Scores(JsonLine):
    """The primary scores of one record by document id: what paired statistics need without the samples."""

    max_line_bytes: ClassVar[int] = 1 << 24
    max_lines: ClassVar[int] = 100_000

    key: Key
    scores: Annotated[dict[Name, float], Field(max_length=200_000)]


class Usage(JsonLine):
    """Where one record spent its layers, over all decode forwards of all its documents.

    Attributes:
        layers: per layer, the share of the forwards that ran it; attention or feed-forward alone counts half. Empty
            where no token was decoded after the prompt, or the samples do not say.
        depths: how many forwards executed as many layers as their place says, rounded; from none to all of them.
    """

    max_line_bytes: ClassVar[int] = 1 << 20
    max_lines: ClassVar[int] = 100_000

    key: Key
    layers: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(max_length=10_000)]
    depths: Annotated[tuple[Count, ...], Field(max_length=20_001)]


class Asked(JsonLine):
    """One test document: the prompt as the model got it, and what it is scored against.

    `source` is a hash of what the document was taken from, such as a passage, where the task says so.
    """

    max_line_bytes: ClassVar[int] = 1 << 23
    max_lines: ClassVar[int] = 2_000_000

    track: Name
    id: Name
    prompt: Output
    references: Annotated[tuple[Output, ...], Field(max_length=1000)]
    source: Key | None = None


class SharedSources(JsonLine):
    """The sources of a track's documents by id, hashed: what statistics need of them without the documents."""

    max_line_bytes: ClassVar[int] = 1 << 24
    max_lines: ClassVar[int] = 100_000

    track: Name
    sources: Annotated[dict[Name, Key], Field(max_length=200_000)]


class Sample(JsonLine):
    """One document of one record.

    Attributes:
        id: the task's document id.
        output: generated text; where answers are weighed, that which the model prefers.
        score: the primary metric; `scores` holds the other per-document metrics.
        answers: where answers are weighed, of each the log-likelihood and whether greedy decoding would write it: what
            scores are made of. Empty in files that were written before they were kept.
        layers: executed layers of each decode forward; parts of a layer count by their share of its FLOPs. Where
            answers are weighed, of each text that ran for it; `tokens.prompt` then counts the tokens of these texts,
            and `flops` holds all they cost.
        routes: what each decoded token did when it was new, with how many forwards in a row did the same; in all as
            many as `layers` has entries. Work that a later token made necessary (kv recompute) is in `layers` only.
        pieces: text of each generated token, special ones too; empty where they are not kept.
        truncated: whether the prompt was cut to fit.
        flops: credited, decode only; `executed_flops` are the same with padding; `prompt_flops` is the prefill's.
        reread: whether the text was read again, as `generate` does, because it outgrew the original context and its
            rotary angles changed; `prompt_flops` holds what that cost.
        near_ties: (decode step, margin) where a logit or threshold margin was below 1e-3: rounding may tip it.
        choice: the candidate an oracle chose.
    """

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


class Candidate(JsonLine):
    """What one candidate (a fixed set of executed layers) scored on one document."""

    max_line_bytes: ClassVar[int] = 1 << 17
    max_lines: ClassVar[int] = 20_000_000

    id: Name
    candidate: Name
    layers: Annotated[tuple[Annotated[int, Field(ge=0, lt=10_000)], ...], Field(max_length=10_000)]
    share: Share
    score: float
