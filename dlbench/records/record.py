"""The record of one method at one budget on one task, and its times."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from dlbench.records.fields import (
    Bounds,
    Budget,
    Count,
    Day,
    Extra,
    Key,
    Line,
    Milliseconds,
    Name,
    Params,
    Sha256,
    Share,
    Trust,
)
from dlbench.records.jsonl import GrownPart, JsonLine, Part


class Hardware(Part):
    """The machine that something ran on, as far as it can be read; None for what cannot, or is not there.

    Attributes:
        processor: its name.
        cores: physical ones of the machine.
        memory_bytes: of the machine.
        clock_mhz: the processor's highest.
        system: operating system and its release.
        gpu: the name of the GPU that computed; None on a CPU.
        gpu_driver: release of its driver.
        gpu_memory_bytes: of the GPU.
        gpu_power_limit_watts: power limit in force.
        gpu_clock_mhz, gpu_memory_clock_mhz: highest clocks of the multiprocessors and of the memory.
    """

    processor: Name
    cores: Annotated[int, Field(ge=1, le=1_000_000)]
    memory_bytes: Count
    clock_mhz: Annotated[float, Field(gt=0)] | None = None
    system: Line = ""
    gpu: Name | None = None
    gpu_driver: Line | None = None
    gpu_memory_bytes: Count | None = None
    gpu_power_limit_watts: Annotated[float, Field(gt=0)] | None = None
    gpu_clock_mhz: Annotated[float, Field(gt=0)] | None = None
    gpu_memory_clock_mhz: Annotated[float, Field(gt=0)] | None = None

    @property
    def label(self) -> str:
        """What tells machines apart in a table: the GPU with its power limit, or the processor with its cores."""
        if self.gpu is None:
            return f"{self.processor}, {self.cores} cores"
        limit = "" if self.gpu_power_limit_watts is None else f", {self.gpu_power_limit_watts:.0f} W"
        return f"{self.gpu}{limit}"


class BackboneInfo(GrownPart):
    """The model that ran; `base_sha256` is of the model it was derived from or is compared with, else its own hash.

    `quantization` is how the checkpoint's weights were stored, such as "gguf Q4_1"; None where they were not quantised,
    and in files from before the field existed. `adapter_of` names the model that a PEFT adapter was merged into.
    """

    later: ClassVar[tuple[str, ...]] = ("quantization", "adapter_of")

    name: Name
    family: Name
    layers: Annotated[int, Field(ge=1, le=10_000)]
    dtype: Name
    sha256: Sha256
    base_sha256: Sha256
    quantization: Name | None = None
    adapter_of: Name | None = None


class MethodUsed(Part):
    """The routing method, its parameters as they ran, and the one among them (if any) that was tuned to the budget.

    `source_sha256` is over its code, see `dlbench.evaluation.settings.source_sha256`.
    `scope` is how long a routing decision holds; it reads "token" in files from before the field existed. With any
    other scope, no later token runs a layer that an earlier one skipped, and all KV policies are equivalent.
    """

    name: Name
    params: Params
    source_sha256: Sha256
    deployable: bool
    kind: Name
    knob: Name | None = None
    scope: Literal["static", "sequence", "token"] = "token"


class TaskUsed(Part):
    """The task and its documents.

    Attributes:
        metric: the per-document metric behind `quality.mean`.
        n: number of documents.
        truncated: how many of their prompts were cut to fit the model's context, or a limit that the task sets.
        with_bos: how many of their prompts begin with a begin-of-text token (none begins with two); None in files from
            before the field existed.
        of: number of documents in the scored split; None in files from before the field existed, as `drawn` then is.
        drawn: which of them were taken: all, a sample by the hash of their ids, or the first ones.
        sources: number of sources (passages, subjects) that they come from, where some share one; intervals resample
            these.
        fit_split: what methods were fitted on: a split, or a fifth of the scored split that was set apart.
        fit_overlap: number of documents left out of fitting because they are scored too.
        signature: how the metrics are computed, with the libraries and their releases.
        chance: score of a random guess, which `retained` subtracts from both sides.
        chat_template: sha256 of the prompts' chat template; None where they have none.
        think_end_token: end mark of the thinking, up to which nothing is scored; None where all of an output is scored.
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


class Run(GrownPart):
    """The settings of the run.

    `budget` is the target layer share, None where there was none; `max_new_tokens` is 0 where given answers are scored
    and nothing is generated. `state` says what becomes of the state of a recurrent layer that a token skips: "hold"
    leaves it as it was, under "recompute" the token runs the layer later; None for models without recurrent layers.
    """

    later: ClassVar[tuple[str, ...]] = ("state",)

    budget: Budget | None
    prompt: Literal["full", "routed"]
    kv: Name
    state: Literal["hold", "recompute"] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**64)]
    max_new_tokens: Annotated[int, Field(ge=0, le=10_000_000)]


class Fit(Part):
    """How a method was fitted: before inference, on documents that are not scored.

    Attributes:
        seed: of the fit; rows that differ in it alone are repeats of one method.
        target: target layer share, None where there was none.
        realised: layer share on the documents that the knob was tuned on.
        learnt_from, tuned_on: numbers of documents.
        tokens: number of tokens in forward passes of the backbone, for learning and tuning.
        learnt: parameters that the fit set, without the knob; they do not make variants of a method.
    """

    seed: Annotated[int, Field(ge=0, lt=2**64)]
    target: Budget | None = None
    realised: Share | None = None
    learnt_from: Count = 0
    tuned_on: Count = 0
    tokens: Count = 0
    learnt: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()


class TuneScore(Part):
    """The mean score on documents of the tune part of the fit split, by which claims choose among methods of a class.

    Attributes:
        n: number of documents; no method has learnt from them.
        mean: of the task's metric.
    """

    n: Annotated[int, Field(ge=1, le=10_000_000)]
    mean: float


class Quality(Part):
    """Scores over the documents of the task.

    `full_mean` and `retained` compare with the base backbone's `full` on the same documents under the same scoring;
    None where that has not run, `retained` also where it is not above chance. `corpus` is the task's first corpus
    metric. `extra` holds the means of the other metrics and the other corpus metrics by name, and

        worst_decile            mean score of the worst tenth of the documents
        length_ratio_reference  characters generated over those of the references nearest in length
        length_ratio_full       characters generated over those that full depth generated
        repetition              share of word 4-grams that occur earlier in the text, a mean over documents
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
    """Credited FLOPs by what they were spent on."""

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
    """Numbers of tokens of a document or a record."""

    prompt: Count
    generated: Count


class Speculation(Part):
    """Counts of self-speculation: tokens drafted, drafts that full depth agreed with, rounds of verification."""

    drafted: Count
    accepted: Count
    rounds: Count


class Compute(Part):
    """Realised cost: FLOPs and tokens are sums over documents, shares are relative to full depth (1).

    `flops` are credited (true context) and `executed_flops` executed (with padding and masked keys), both of decoding;
    a difference that neither padding nor the KV policy `evict` explains is a bug. `flop_share_total` includes the
    prompts.
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

    With `status` "unreachable" the budget is missed: no value of the knob reaches it, or the one that did in tuning
    does not on the test documents. `quality` and `compute` then describe the closest setting, or are both None where
    nothing was run. With "ok" neither is None. `tune` is written where it is known only.
    """

    max_line_bytes: ClassVar[int] = 1 << 18
    max_lines: ClassVar[int] = 100_000

    schema_: Literal["dlbench.record/1"] = Field(default="dlbench.record/1", alias="schema")
    key: Key
    track: Name
    backbone: BackboneInfo
    method: MethodUsed
    task: TaskUsed
    run: Run
    quality: Quality | None
    compute: Compute | None
    status: Literal["ok", "unreachable"] = "ok"
    fit: Fit | None = None
    tune: TuneScore | None = Field(default=None, exclude_if=lambda tune: tune is None)
    trust: Trust = "self-reported"
    notes: Annotated[tuple[Line, ...], Field(max_length=64)] = ()
    env: Annotated[dict[Name, Line], Field(max_length=64)] = Field(default_factory=dict)
    hardware: Hardware | None = Field(default=None, exclude_if=lambda hardware: hardware is None)
    """Where it was decoded; None in files from before the field existed."""
    withdrawn: Annotated[Line, Field(min_length=1)] | None = Field(default=None, exclude_if=lambda why: why is None)
    """Why the row was withdrawn, set by the publisher; it stays visible but is not ranked. None where it stands."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.quality is None) != (self.compute is None):
            raise ValueError("quality and compute come together")
        if self.status == "ok" and self.quality is None:
            raise ValueError('status "ok" needs quality and compute')
        return self


class Timing(JsonLine):
    """Times of one record's setting at one batch size, on one machine.

    `speedup` is full depth's decode time per token over this setting's, measured in alternation in the same process;
    `speedup_spread` is the interquartile range of its repeats over their median, and `spread` that of the times.
    `kernels` is what ran the layers: "stock", the
    model's own code; "fused"; or "captured", fused layers as CUDA graphs.
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
    speedup_spread: Annotated[float, Field(ge=0)] | None = None
    repeats: Annotated[int, Field(ge=1, le=1_000_000)]
    kernels: Name = "stock"
    hardware: Hardware | None = Field(default=None, exclude_if=lambda hardware: hardware is None)
    """None in files from before the field existed."""
    peak_bytes: Count | None = Field(default=None, exclude_if=lambda peak: peak is None)
    """Most memory of the device that the timing process held while the setting decoded, the model included; None where
    that cannot be read, and in files from before the field existed, as of the next two."""
    joules_per_token: Annotated[float, Field(ge=0)] | None = Field(
        default=None, exclude_if=lambda joules: joules is None
    )
    """Energy of the processor's packages (RAPL) per token decoded."""
    others_busy: Annotated[float, Field(ge=0, le=1)] | None = Field(default=None, exclude_if=lambda busy: busy is None)
    """Share of the machine's processors that other programs used while these times were taken."""
    date: Day | None = Field(default=None, exclude_if=lambda date: date is None)
    """Day on which they were taken, UTC; None in files from before the field existed."""

    @property
    def machine(self) -> str:
        """Names the machine: times of different machines are never compared with each other."""
        where = self.device if self.hardware is None else f"{self.hardware.label} ({self.device})"
        return f"{where}, {self.threads} threads"
