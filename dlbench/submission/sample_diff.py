"""Whether a document that was decoded again agrees with the claim."""

from __future__ import annotations

import math
from itertools import chain, repeat
from typing import Literal

from dlbench.records.schema import Sample

Agreement = Literal["same", "near tie"]
TIE = 1e-4
"""Margin of logits and scores in float32 below which the order of summation may decide."""
NEAR_TIES = 0.1
"""Largest share of a row's documents that may differ at near ties; one document always may."""


def compare(claimed: Sample, again: Sample, tie: float = TIE) -> Agreement | str:
    """Return whether two samples of a document agree, or how they differ.

    Padding is no part of it: executed FLOPs depend on what was decoded side by side.

    Args:
        claimed: of the submission.
        again: decoded here; only its near ties count.
        tie: margin below which rounding may decide.
    """
    if claimed.tokens.prompt != again.tokens.prompt:
        return f"a prompt of {claimed.tokens.prompt} tokens is claimed, it has {again.tokens.prompt}"
    differences = _differences(claimed, again)
    if not differences:
        return "same"
    at = _first(claimed, again)
    if at is not None and any(index == at and margin < tie for index, margin in again.near_ties):
        return "near tie"
    return "; ".join(differences)


def _differences(claimed: Sample, again: Sample) -> list[str]:
    differences = []
    if claimed.output != again.output:
        differences.append("another text")
    if len(claimed.layers) != len(again.layers) or claimed.tokens.generated != again.tokens.generated:
        differences.append(f"{claimed.tokens.generated} tokens claimed, {again.tokens.generated} written")
    if claimed.routes != again.routes:
        differences.append("other routes")
    if not _close(claimed.layers, again.layers):
        differences.append(f"{sum(claimed.layers):.2f} layers claimed, {sum(again.layers):.2f} run")
    if (claimed.flops, claimed.prompt_flops) != (again.flops, again.prompt_flops):
        differences.append(f"{claimed.flops.total:,} decode FLOPs claimed, {again.flops.total:,} counted")
    if not _same_answers(claimed, again):
        differences.append("other log-likelihoods")
    return differences


def _close(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return len(one) == len(other) and all(abs(a - b) < 1e-6 for a, b in zip(one, other, strict=True))


def _same_answers(claimed: Sample, again: Sample) -> bool:
    if len(claimed.answers) != len(again.answers):
        return False
    pairs = zip(claimed.answers, again.answers, strict=True)
    return all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-3) for (a, _), (b, _) in pairs)


def _first(claimed: Sample, again: Sample) -> int | None:
    """Index of the first token that differs, or whose forward ran other layers; None where none is known to."""
    text = _first_difference(claimed.pieces, again.pieces) if claimed.pieces and again.pieces else None
    ran = _first_difference(_by_forward(claimed), _by_forward(again))
    places = [place for place in (text, None if ran is None else ran + 1) if place is not None]
    return min(places, default=None)


def _by_forward(sample: Sample) -> tuple[str, ...]:
    return tuple(chain.from_iterable(repeat(route, times) for route, times in sample.routes))


def _first_difference(one: tuple[str, ...], other: tuple[str, ...]) -> int | None:
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return None if len(one) == len(other) else min(len(one), len(other))
