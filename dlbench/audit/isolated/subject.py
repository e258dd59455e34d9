"""The process that a method is audited in: load, fit and decode it under several conditions, and report what was seen.

It has neither references nor the test split: documents are fresh, and what it takes for their references are decoys.
It is forked before anything of the method is imported, and what it reports is held against a replay elsewhere.
"""

from __future__ import annotations

import atexit
import contextlib
import random
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dlbench.audit.isolated.case import Case
from dlbench.audit.isolated.code_watch import CodeWatch
from dlbench.audit.isolated.documents import AuditBench, WatchedTask
from dlbench.audit.isolated.event_watch import EventWatch, own_files
from dlbench.audit.isolated.interface_watch import watched_interface
from dlbench.audit.isolated.recording import Recording
from dlbench.audit.method_calls import closed_form, learn_parameters
from dlbench.audit.method_case import BUDGET, ShortProbe
from dlbench.engine import Engine, Generation
from dlbench.engine.keyed_rng import key_of
from dlbench.fit import tune
from dlbench.method import Draft, Method
from dlbench.models.checkpoint.checksum import WeightsGuard
from dlbench.registry import plugin_code
from dlbench.registry.side_effects import undone

SEED = 3
"""Of the methods' noise."""
_MOST = 8
"""Findings of one kind that are reported."""
CONSTRUCTION = 0.5
"""Seconds of processor time that making a method may take."""
_IDLE, _IDLE_WORK = 0.3, 0.01
"""Seconds that the process does nothing, and of processor time that it may take for it."""
_RUN = ("dlbench", "run", "--method")
_TIMING = ("dlbench/evaluation/timing.py", "job.json")
_GENERATORS: Mapping[str, tuple[Callable[[], Any], Callable[[int], Any]]] = {
    "Python's generator": (random.getstate, random.seed),
    "numpy's generator": (lambda: np.random.get_state()[1].tobytes(), np.random.seed),  # type: ignore[index]
    "torch's generator": (lambda: torch.get_rng_state().numpy().tobytes(), torch.manual_seed),
}


def processor_seconds() -> float:
    """Processor time of this process, its threads, and its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@dataclass
class AuditSubject:
    """One method in this process."""

    case: Case
    bench: AuditBench
    send: Callable[[Mapping[str, Any]], None]
    """Reports to the parent."""
    doing: str = "was loaded"
    _seen: dict[tuple[str, str], str] = field(default_factory=dict)
    """Kind and what was seen → what the method did at first."""
    _spoilt: bool = False

    def run(self) -> None:
        """Carry out the audit, and report."""
        atexit._clear()  # what the parent has registered
        sys.argv[:] = [*_RUN, self.case.given]
        self._events = EventWatch(own_files(self.case.file), self._note)
        self._guard, self._code = WeightsGuard(self.bench.backbone.model), CodeWatch()
        try:
            method = self._made()
            if method is not None:
                self._decode(method)
        except BaseException as error:
            self._note("ends", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        self._step("ended the process")
        atexit._run_exitfuncs()
        self._compare()
        self.send({"findings": self._findings(), "done": True})

    def _note(self, kind: str, what: str) -> None:
        if sum(known == kind for known, _ in self._seen) < _MOST:
            self._seen.setdefault((kind, what), self.doing)

    def _findings(self) -> list[tuple[str, str]]:
        return [(kind, f"{what} (while it {doing})") for (kind, what), doing in self._seen.items()]

    def _step(self, doing: str) -> None:
        self.doing = doing
        self.send({"doing": doing, "findings": self._findings()})

    def _compare(self) -> None:
        """Note what a piece of the method's work has changed for good."""
        if not self._spoilt and (name := self._guard.changed()) is not None:
            self._spoilt = True
            self._note("weights", name)
        for name in self._code.replaced()[:_MOST]:
            self._note("code", name)
        if threading.active_count() > 1:
            self._note("threads", f"{threading.active_count() - 1} run on")

    def _left(self, changed: str) -> None:
        self._note("global-state", changed)

    def _made(self) -> Method | None:
        """The method after a short fit; None for an oracle, which decides from scores and is asked nothing."""
        self._step("was loaded")
        with undone(self._left):
            self._events.loading = True
            kind = self.case.load()
            start = processor_seconds()
            made = kind.from_params(self.case.params)
            made.validate(self.bench.backbone.depth)
            if (spent := processor_seconds() - start) > CONSTRUCTION:
                self._note("uncounted", f"{spent:.1f} s of processor time to make it")
            self._events.loading = False
        if threading.active_count() > 1:  # what it has started may take so much time that nothing else comes to an end
            self._rest()
            self._step("was loaded")
        self.send({"variants": [dict(params) for params in kind.variants]})
        self._compare()
        if not isinstance(made, Method):
            self.send({"oracle": True})
            return None
        self._step("was fitted")
        with undone(self._left), watched_interface(ShortProbe, "Probe", self.case.file, self._note):
            fitted = self._fitted(made)
        self._compare()
        return fitted

    def _fitted(self, method: Method) -> Method:
        bench = self.bench.bench
        task = WatchedTask.of(bench.task, self._note)
        probe = ShortProbe(bench.backbone, task, bench.learn, bench.tune, 0, BUDGET, readings=bench.readings)
        with plugin_code.blaming(method, "while it was fitted"):
            if method.learns:
                learn_parameters(method, probe)
            closed = closed_form(method, BUDGET, bench.backbone.depth)
            if closed is None and method.knob is not None and method.tuned:
                tune(probe, method, BUDGET)
        return method if closed is None else closed

    def _decode(self, method: Method) -> None:
        depth, engine = self.bench.backbone.depth, self.bench.bench.engine
        live = method.live(depth)
        self.send(
            {
                "claim": {
                    "scope": method.scope,
                    "live": None if live is None else sorted(live),
                    "kv": method.kv[0],
                    "draft": isinstance(method, Draft),
                    "adapters": type(method).bypass is not Method.bypass,
                    "batch_dependent": method.batch_dependent,
                    "future": method.uses_future,
                }
            }
        )
        states: list[dict[str, Any]] = []
        recording, seconds = Recording(), float("inf")
        for seed, doing in ((11, "decoded"), (12, "decoded again")):
            before = self._seeded(seed)
            with recording.of(method) if states else contextlib.nullcontext():
                written, taken = self._written(doing, method, engine)
            seconds = min(seconds, taken)
            states.append({name: now for name, now in self._drawn.items() if now != before[name]})
            self.send({"condition": doing, "written": self._facts(written)})
        for name in states[0].keys() & states[1].keys():
            if states[0][name] == states[1][name]:  # from two different states
                self._note("global-state", f"the seed of {name}")
        self.send({"answers": recording.answers, "scores": self._scores(written)})
        more = [self._written("decoded once more", method, engine)[1] for _ in range(2)]  # recording takes time
        self.send({"seconds": min(seconds, *more)})
        self._conditions(method, engine)
        self._rest()

    def _rest(self) -> None:
        """Ask nothing of the method for a while, and note it if it computes."""
        self._step("was not asked anything")
        start = processor_seconds()
        time.sleep(_IDLE)
        if (spent := processor_seconds() - start) > _IDLE_WORK:
            self._note("idle", f"{spent:.2f} s of processor time in {_IDLE} s")

    def _conditions(self, method: Method, engine: Engine) -> None:
        """What must make no difference."""
        if not method.batch_dependent:
            self._report("decoded, two at a time in another order", method, engine, slots=2, backwards=True)
            self._report("decoded, one by one", method, engine, slots=1)
        with watched_interface(None, "View", self.case.file, self._note):
            self._report("decoded under other ids", method, engine, renamed="other ")
        self._report("decoded with other references", method, engine, decoy="another")
        sys.argv[:] = list(_TIMING)
        self._report("was timed", method, Engine(self.bench.backbone, metered=False, kernels="stock"))
        sys.argv[:] = [*_RUN, self.case.given]

    def _report(self, doing: str, method: Method, engine: Engine, **options: Any) -> None:
        written, _ = self._written(doing, method, engine, **options)
        self.send({"condition": doing, "written": self._facts(written)})

    def _written(
        self,
        doing: str,
        method: Method,
        engine: Engine,
        *,
        slots: int | None = None,
        backwards: bool = False,
        renamed: str = "",
        decoy: str = "decoy",
    ) -> tuple[list[Generation], float]:
        """What the method writes, in the order of the documents, and the processor time of decoding it in seconds."""
        self._step(doing)
        documents = self.bench.posed(decoy, renamed=renamed)
        requests = self.bench.requests(documents)
        order = list(reversed(range(len(requests)))) if backwards else list(range(len(requests)))
        wave = engine.prefill([requests[i] for i in order], slots=slots, reads=method.reads(self.bench.backbone.depth))
        if renamed:  # noise stays that of the documents
            wave.keys = np.array([key_of(d.id) for d in self.bench.fresh], dtype=np.uint64)
        with undone(self._left), plugin_code.blaming(method, f"while it {doing}"):
            start = processor_seconds()
            written = wave.decode(method, seed=SEED)
            seconds = processor_seconds() - start
            self._drawn = {name: read() for name, (read, _) in _GENERATORS.items()}
        self._compare()
        return [written[order.index(i)] for i in range(len(order))], seconds

    def _facts(self, written: Sequence[Generation]) -> list[dict[str, Any]]:
        return [
            {
                "tokens": [int(token) for token in g.tokens],
                "routes": [["".join(map(str, route)), int(times)] for route, times in g.routes],
                "flops": {name: int(value) for name, value in g.flops.items()},
                "layers": [float(n) for n in g.layers],
                "near_ties": [[int(at), float(margin)] for at, margin in g.near_ties],
            }
            for g in written
        ]

    def _scores(self, written: Sequence[Generation]) -> list[dict[str, float]]:
        task, backbone = self.bench.bench.task, self.bench.backbone
        return [
            {name: float(value) for name, value in task.score(d, backbone.text(g.tokens, d.thinking)).items()}
            for d, g in zip(self.bench.posed("decoy"), written, strict=True)
        ]

    def _seeded(self, seed: int) -> dict[str, Any]:
        """Seed all global generators, and return their states."""
        for _, put in _GENERATORS.values():
            put(seed)
        return {name: read() for name, (read, _) in _GENERATORS.items()}
