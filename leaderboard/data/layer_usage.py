"""How often each layer ran and how deep tokens went, counted from the routes of a record's samples."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dlbench.records.schema import Sample, Usage

# Share of a layer that a digit of a route stands for: skipped, attention only, feed-forward only, both.
_WORTH = np.array([0.0, 0.5, 0.5, 1.0])
_ZERO = ord("0")


def count_usage(key: str, depth: int, samples: Iterable[Sample]) -> Usage:
    """Count layers and depths over the decode forwards of all samples.

    Args:
        key: of the record.
        depth: layers of its backbone.
        samples: consumed once, in any order. Routes of another depth than the backbone's are left out.
    """
    ran = np.zeros(depth)
    routed = 0
    depths = np.zeros(depth + 1, dtype=np.int64)
    for sample in samples:
        routes = [(route, times) for route, times in sample.routes if len(route) == depth]
        if routes:
            digits = np.frombuffer("".join(route for route, _ in routes).encode(), dtype=np.uint8) - _ZERO
            often = np.array([times for _, times in routes])
            ran += often @ _WORTH[digits].reshape(-1, depth)
            routed += int(often.sum())
        if sample.layers:
            rounded = np.rint(np.asarray(sample.layers)).astype(np.int64)
            # More layers than the model has are possible: one runs again for the keys and values of an earlier token.
            depths += np.bincount(np.minimum(rounded, depth), minlength=depth + 1)
    return Usage(
        key=key,
        layers=tuple(float(share) for share in np.minimum(ran / routed, 1.0)) if routed else (),
        depths=tuple(int(count) for count in depths) if depths.any() else (),
    )
