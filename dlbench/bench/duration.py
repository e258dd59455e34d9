"""How long the benchmark of its own models takes: seconds of a reference machine, scaled by a probe of this one."""

from __future__ import annotations

from collections.abc import Sequence

from dlbench.bench.decode import step_ms
from dlbench.bench.models import random_llama, random_requests
from dlbench.bench.workbench import Workbench

# Of both kinds on two cores of an AMD EPYC, with one thread, in float32.
PROBE_MS = 14.5
"""Milliseconds of the probe: a decode step of the narrow model at batch 16."""
FULL = dict.fromkeys(("decode", "wide", "requests", "sweep", "memory", "start"), 60.0)
"""Seconds of each part."""
QUICK = dict.fromkeys(FULL, 15.0)


def expected(bench: Workbench, parts: Sequence[str]) -> str:
    """Say how long these parts will take."""
    if not bench.device.startswith("cpu"):
        return f"a while: {', '.join(parts)}; there is no forecast for {bench.device}"
    shape = bench.sizes.narrow
    engine = bench.engine(random_llama(shape, device=bench.device, dtype=bench.dtype))
    wave = engine.prefill(random_requests(16, bench.sizes.prompt, bench.sizes.narrow_tokens, shape.vocabulary))
    probe = min(step_ms(wave, None, bench.watch) for _ in range(3))
    reference = QUICK if bench.sizes.quick else FULL
    return f"about {minutes(probe / PROBE_MS * sum(reference[part] for part in parts))}: {', '.join(parts)}"


def minutes(seconds: float) -> str:
    """Return a duration for people."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
