"""Generation: decode every setting on every document of a task, batch by batch, and store each sample."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlbench.data.task import Task
from dlbench.engine import Engine, Generation, Wave
from dlbench.engine.flops.costs import CATEGORIES
from dlbench.errors import DlbenchError, MethodError, WeightsChangedError
from dlbench.evaluation.multiple_choice import samples
from dlbench.evaluation.settings import Setting
from dlbench.method import Method
from dlbench.models import batch_size
from dlbench.prompting.tokenize import Prompted
from dlbench.records.run_folder import Store
from dlbench.records.schema import Flops, Sample, Speculation, Tokens
from dlbench.registry import plugin_code
from dlbench.registry.side_effects import undone
from dlbench.system import device_memory

PIECES = 2000
"""Longest output, in tokens, for which each token's text is stored."""


class _Ended(Exception):
    """`go_on` said that nothing more is to be decoded."""


@dataclass
class QualityRun:
    """Decodes the settings of one backbone and task."""

    engine: Engine
    task: Task
    store: Store
    routed: bool
    """Whether prompts run the method's layers only."""
    kv: Callable[[Method], str | None] = lambda method: None
    """From a method to the policy for the keys and values of skipped tokens; None takes the method's own."""
    process: int = 0
    processes: int = 1
    """Processes that share the batches, and the memory."""
    slots: int = 48
    """Most rows decoded together; further rows of a batch wait until one is free."""
    auto: bool = False
    """Whether batches are split to fit the free memory; otherwise only after an out-of-memory error."""
    note: Callable[[str], None] = lambda line: None
    """Prints a line when a batch does not fit."""
    log: Callable[..., None] = lambda kind, **facts: None
    """Adds an event to the run's log: its kind, and facts about it."""
    take: Callable[[int], bool] | None = None
    """Takes a batch for this process, by its index, where no other has taken it; None: every `processes`-th is its."""
    go_on: Callable[[], bool] = lambda: True
    """Asked before each setting of a batch whether to decode it."""
    batch_limit: int | None = None
    """Batch limit after an out-of-memory error; None before."""
    failed: dict[str, MethodError] = field(default_factory=dict)
    """Content key of each setting whose method failed, and why; nothing more is decoded under it."""
    _told: set[str] = field(default_factory=set)
    """Content keys of settings whose side effects were told."""
    _texts: dict[int, str] = field(default_factory=dict)
    """Token id → its text, for the tokens seen so far."""

    def run(self, batches: Sequence[list[Prompted]], settings: Sequence[Setting], done: Callable[[int], None]) -> bool:
        """Decode the samples that are not in the store yet; return False where `go_on` ended this before all were.

        Args:
            batches: of all processes, from the shortest prompts to the longest.
            settings: to decode each of them with.
            done: told the number of documents × settings that are finished, as they finish; with `take`, that others
                have taken too.

        Raises:
            DlbenchError: one document alone does not fit the memory.
        """
        try:
            self._run(batches, settings, done)
        except _Ended:
            return False
        return True

    def _run(self, batches: Sequence[list[Prompted]], settings: Sequence[Setting], done: Callable[[int], None]) -> None:
        take, order = self.take, range(len(batches))
        # the longest first: last, one process would still be decoding it when all others are done
        for index in order if take is None else reversed(order):
            batch = batches[index]
            if take is None and index % self.processes != self.process:
                continue
            if take is not None and not take(index):
                done(len(batch) * len(settings))
                continue
            for part in self._parts(batch, self._missing(batch, settings)):
                self._decode(part, settings, done)

    def _missing(self, batch: Sequence[Prompted], settings: Sequence[Setting]) -> list[Setting]:
        wanted = [s for s in settings if s.key not in self.failed]
        return [s for s in wanted if any(p.document.id not in self.store.ids(s.key) for p in batch)]

    def _parts(self, batch: list[Prompted], settings: Sequence[Setting]) -> list[list[Prompted]]:
        """Split a batch into equal parts that fit the memory."""
        rows = min(len(batch), self.batch_limit or len(batch))
        if self.auto and settings:
            requests = [p.request for p in batch]
            longest, new = max(len(r.ids) for r in requests), max(r.limit for r in requests)
            layers = max(self._cached_layers(s) for s in settings)
            backbone = self.engine.backbone
            free = device_memory.free_bytes(backbone.device, self.processes) + self.engine.idle_bytes()
            copied = self.engine.may_be_reread(requests) > 0
            rows = min(rows, batch_size.rows_that_fit(backbone, longest, new, layers, self.slots, free, copied=copied))
        size = -(-len(batch) // -(-len(batch) // rows))
        return [batch[i : i + size] for i in range(0, len(batch), size)]

    def _cached_layers(self, setting: Setting) -> int:
        """Number of layers that hold keys and values: under a routed prompt those that the method can run."""
        depth = self.engine.backbone.depth
        live = setting.method.live(depth) if self.routed else None
        return depth if live is None else len(live)

    def _decode(self, batch: list[Prompted], settings: Sequence[Setting], done: Callable[[int], None]) -> None:
        """Decode a batch; one that does not fit the memory is halved, and so are those that follow."""
        missing = self._missing(batch, settings)
        done(len(batch) * (len(settings) - len(missing)))
        if not missing or (len(batch) <= (self.batch_limit or len(batch)) and self._fits(batch, missing, done)):
            return
        left = self._missing(batch, missing)  # what was finished before memory ran out is counted already
        for part in self._parts(batch, left):
            self._decode(part, left, done)

    def _fits(self, batch: list[Prompted], settings: Sequence[Setting], done: Callable[[int], None]) -> bool:
        """Decode a batch in one go; return False where it does not fit the memory."""
        try:
            self._decode_batch(batch, settings, done)
            return True
        except Exception as error:
            if not device_memory.ran_out(error):
                raise
            if len(batch) == 1:
                raise self._too_large(batch[0]) from error
        self.engine.release()
        device_memory.release()
        self.note(
            f"{self.task.name} on {self.engine.backbone.name}: {len(batch)} documents at once do not fit the "
            f"memory of {self.engine.backbone.device}; going on with half as many, or what fits"
        )
        self.batch_limit = (len(batch) + 1) // 2
        return False

    def _too_large(self, prompted: Prompted) -> DlbenchError:
        backbone, request = self.engine.backbone, prompted.request
        return DlbenchError(
            f"document {request.id} of {self.task.name} does not fit the memory of {backbone.device} even alone: model "
            f"{backbone.name!r} in {backbone.dtype}, {len(request.ids)} prompt tokens, up to {request.limit} new ones; "
            "take a smaller model, a smaller dtype or another device"
        )

    def _decode_batch(self, batch: list[Prompted], settings: Sequence[Setting], done: Callable[[int], None]) -> None:
        if self.task.is_loglikelihood:
            self._score_answers(batch, settings, done)
            return
        shared: Wave | None = None
        finished: dict[Any, list[Generation]] = {}
        for setting in self._due(settings):
            began = time.perf_counter()
            with self._guarded(setting):
                same = setting.output_key(self.engine.backbone.depth)
                generations = finished.get(same) if same is not None else None
                if generations is None:
                    if self.routed:
                        wave = self._prefill(batch, setting)
                    else:
                        wave = shared = shared or self._prefill(batch, None, self._reads(settings))
                    method = None if setting.name == "full" else setting.method
                    policy = self.kv(setting.method)
                    generations = wave.decode(method, seed=setting.seed, sample=setting.sample, kv=policy)
                    self._check_weights(setting)
                    if same is not None:
                        finished[same] = generations
                self._keep(setting, (self._sample(p, g) for p, g in zip(batch, generations, strict=True)), began)
            done(len(batch))

    def _keep(self, setting: Setting, decoded: Iterable[Sample], began: float) -> None:
        """Store the samples that are new, and log the wave, which began at that time of `time.perf_counter`."""
        known = self.store.ids(setting.key)
        new = [sample for sample in decoded if sample.id not in known]
        self.store.append(setting.key, self.process, new)
        seconds = round(time.perf_counter() - began, 3)
        self.log("wave", key=setting.key, documents=len(new), seconds=seconds)

    def _due(self, settings: Sequence[Setting]) -> Iterator[Setting]:
        """Yield the settings of a batch one by one, as long as `go_on` allows it."""
        for setting in settings:
            if not self.go_on():
                raise _Ended
            yield setting

    @contextlib.contextmanager
    def _guarded(self, setting: Setting) -> Iterator[None]:
        """Note a failure of the method's code, and go on without the setting; put back what its code changes."""

        def tell(changed: str) -> None:
            if setting.key not in self._told:
                self._told.add(setting.key)
                self.note(f"method {setting.name!r} changed {changed} while it decoded: put back")

        try:
            with undone(tell):
                yield
        except (Exception, SystemExit) as error:
            if not isinstance(error, WeightsChangedError):
                self._check_weights(setting)
            if device_memory.ran_out(error):
                raise
            failure = error if isinstance(error, MethodError) else None
            if not isinstance(error, DlbenchError):
                failure = plugin_code.blame(setting.method, error)
            if failure is None:
                raise
            self.failed[setting.key] = failure

    def _check_weights(self, setting: Setting) -> None:
        """Check before anything is stored that the method has left the weights alone.

        Raises:
            WeightsChangedError: it has not.
        """
        self.engine.backbone.check_weights(setting.name, "while it decoded")

    def _score_answers(self, batch: list[Prompted], settings: Sequence[Setting], done: Callable[[int], None]) -> None:
        items = [(p.document, p.encoded) for p in batch if p.encoded is not None]
        for setting in self._due(settings):
            began = time.perf_counter()
            with self._guarded(setting):
                method = None if setting.name == "full" else setting.method
                scored = samples(self.engine, self.task, items, method, setting.seed, self.slots)
                self._check_weights(setting)
                self._keep(setting, scored, began)
            done(len(batch))

    def _reads(self, settings: Sequence[Setting]) -> frozenset[int]:
        """Layers before which any of the methods reads the prompts' hidden states."""
        read: frozenset[int] = frozenset()
        for setting in settings:
            with self._guarded(setting):
                read |= setting.method.reads(self.engine.backbone.depth)
        return read

    def _prefill(self, batch: list[Prompted], setting: Setting | None, reads: frozenset[int] = frozenset()) -> Wave:
        method = None if setting is None or setting.name == "full" else setting.method
        seed = 0 if setting is None else setting.seed
        return self.engine.prefill([p.request for p in batch], method, seed, slots=self.slots, reads=reads)

    def _sample(self, prompted: Prompted, generation: Generation) -> Sample:
        backbone, document = self.engine.backbone, prompted.document
        text = backbone.text(generation.tokens, document.thinking)
        scores = dict(self.task.score(document, text))
        score = scores.pop(self.task.metric)
        return Sample(
            id=document.id,
            output=text,
            score=score,
            scores=scores,
            layers=tuple(float(n) for n in generation.layers),
            routes=tuple(("".join(map(str, route)), times) for route, times in generation.routes),
            pieces=self._pieces(generation.tokens),
            truncated=prompted.truncated,
            tokens=Tokens(prompt=len(prompted.request.ids), generated=len(generation.tokens)),
            flops=Flops(**{c: generation.flops[c] for c in CATEGORIES}),
            prompt_flops=generation.prompt_flops,
            executed_flops=generation.executed,
            reread=generation.reread,
            speculation=_account(generation),
            near_ties=tuple(generation.near_ties),
        )

    def _pieces(self, tokens: Sequence[int]) -> tuple[str, ...]:
        """The text of every token, to be shown beside the layers that it ran."""
        if len(tokens) > PIECES:
            return ()
        for token in set(tokens).difference(self._texts):
            self._texts[token] = self.engine.backbone.tokenizer.decode([token])[:1000]
        return tuple(self._texts[token] for token in tokens)


def _account(generation: Generation) -> Speculation | None:
    if generation.speculation is None:
        return None
    drafted, accepted, rounds = generation.speculation
    return Speculation(drafted=drafted, accepted=accepted, rounds=rounds)


def total(batches: Sequence[list[Prompted]], settings: Sequence[Setting], process: int, processes: int) -> int:
    """Return the number of documents × settings that one process decodes."""
    return sum(len(b) for i, b in enumerate(batches) if i % processes == process) * len(settings)
