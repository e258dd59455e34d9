"""Times: settings that are measured together, and batches that do not fit the memory."""

from dataclasses import replace

import pytest
import tape
import tiny_models
import torch

from dlbench.engine import Engine, Request
from dlbench.evaluation.timing import DeviceTimer, TimedSetting, attempt
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.backbone import wrap


def items(count=16):
    engine = Engine(wrap(tiny_models.build("llama", depth=4), name="tiny"), metered=False)
    prompts = [Request(f"d{i}", ids, 4) for i, ids in enumerate(tiny_models.prompts(count))]
    facts = [
        {"key": f"{i}" * 32, "name": name, "budget": None, "seed": 0, "forwards": 3.0, "kv": "project"}
        for i, name in enumerate(("full", "s"))
    ]
    methods = (None, StaticSkip(share=0.5))
    return [TimedSetting(fact, engine, prompts, method) for fact, method in zip(facts, methods, strict=True)]


def test_times_stand_beside_those_of_full():
    full, skip = attempt(items(), 16, routed=False, task="toy")
    assert (full.speedup, full.batch_size, skip.batch_size, skip.task) == (1.0, 16, 16, "toy")
    assert full.ms_per_document > full.prefill_ms_per_document > 0 and skip.decode_ms_per_token > 0


def test_nothing_is_captured_in_what_is_timed(monkeypatch):
    monkeypatch.setattr("dlbench.engine.runtime.recorder", lambda device: tape.record)
    made = items()
    made.append(replace(made[0], facts={**made[0].facts, "name": "r"}, method=RandomSkip(share=0.5)))
    of, recorded = DeviceTimer.of, []

    def watched(self, work):
        before = tape.Tape.count
        found = of(self, work)
        if isinstance(found[1], list):  # generations, not a wave
            recorded.append(tape.Tape.count - before)
        return found

    monkeypatch.setattr(DeviceTimer, "of", watched)
    before = tape.Tape.count
    times = attempt(made, 16, routed=False, task="toy")
    assert [one.kernels for one in times] == ["captured"] * 3
    assert tape.Tape.count > before and len(recorded) > 4 and not any(recorded)


def test_a_batch_that_does_not_fit_has_no_times(monkeypatch):
    prefill = Engine.prefill

    def limited(self, requests, *rest, **more):
        if len(requests) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return prefill(self, requests, *rest, **more)

    monkeypatch.setattr(Engine, "prefill", limited)
    made = items()
    assert attempt(made, 16, routed=False, task="toy") is None
    assert len(attempt(made, 1, routed=False, task="toy")) == 2

    def broken(self, requests, *rest, **more):
        raise RuntimeError("shapes")

    monkeypatch.setattr(Engine, "prefill", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        attempt(made, 1, routed=False, task="toy")
