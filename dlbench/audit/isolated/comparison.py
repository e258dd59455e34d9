"""Compare what a subject reported with itself under other conditions, and with a replay of its routes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dlbench.audit.isolated.documents import AuditBench
from dlbench.audit.isolated.findings import Finding
from dlbench.audit.isolated.replay import MethodClaim, Routes, replay
from dlbench.engine import Generation
from dlbench.errors import DlbenchError

_NAMES = {
    "decoded, two at a time in another order": "neighbours",
    "decoded, one by one": "neighbours",
    "decoded under other ids": "ids",
    "decoded with other references": "references",
    "was timed": "timed",
}
"""Condition → what a method does that decides otherwise under it."""
_TIMES = 3
SLACK, PER_QUESTION = 1.6, 0.0005
"""What a method may take beyond its replay: a factor, and seconds of processor time before each layer of each step."""


def compare(reported: Mapping[str, Any], bench: AuditBench) -> Iterator[Finding]:
    """Yield what a report shows.

    Args:
        reported: by the subject; it may be made up. Of one that did not come to its end, nothing is compared.
        bench: what it decoded.

    Raises:
        KeyError, TypeError, ValueError, IndexError: the report has not the form of one.
    """
    written = reported["written"]
    if "oracle" in reported or not reported.get("done"):
        return
    base, again = written["decoded"], written["decoded again"]
    if found := _differs(base, again):
        yield Finding("state", found)
        return  # every other comparison would find it too
    claim = MethodClaim.of(reported["claim"])
    for condition, kind in _NAMES.items():
        if claim.batch_dependent and kind == "neighbours":
            continue
        if found := _differs(base, written[condition]):
            yield Finding(kind, f"{found} when it {condition}")
    yield from _scores(reported, base["written"], bench)
    if not (claim.adapters and claim.scope != "token"):  # which are not asked at every step
        yield from _replayed(reported, claim, base, bench)


def _differs(base: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What differs first between two decodings; empty where nothing does."""
    for index, (one, another) in enumerate(zip(base["written"], other["written"], strict=True)):
        if one["routes"] != another["routes"]:
            return f"document {index} runs other layers"
        if one["tokens"] != another["tokens"]:
            return f"document {index} has another text"
    return ""


def _scores(reported: Mapping[str, Any], base: Sequence[Mapping[str, Any]], bench: AuditBench) -> Iterator[Finding]:
    task, backbone = bench.bench.task, bench.backbone
    for document, one, claimed in zip(bench.posed("decoy"), base, reported["scores"], strict=True):
        scores = task.score(document, backbone.text(one["tokens"], document.thinking))
        if any(abs(claimed[name] - value) > 1e-9 for name, value in scores.items()):
            yield Finding("scores", f"document {document.id}: {claimed} is claimed, it is {dict(scores)}")
            return


def _replayed(
    reported: Mapping[str, Any], claim: MethodClaim, base: Mapping[str, Any], bench: AuditBench
) -> Iterator[Finding]:
    requests, engine = bench.requests(bench.posed("decoy")), bench.bench.engine
    routes: list[Routes] = [[(digits, times) for digits, times in one["routes"]] for one in base["written"]]
    try:
        generations, least = replay(engine, requests, claim, routes, reported["answers"], times=_TIMES)
    except (DlbenchError, RuntimeError) as error:
        yield Finding("texts", f"they cannot be replayed: {error}")
        return
    for request, one, generation in zip(requests, base["written"], generations, strict=True):
        if one["tokens"] != generation.tokens:
            yield Finding("texts", f"document {request.id}")
            return
        if not claim.draft and (found := _flops(one, generation)):
            yield Finding("flops", f"document {request.id}: {found}")
            return
    ran = sum(sum(g.flops.values()) for g in generations)
    counted = max(ran, sum(sum(one["flops"].values()) for one in base["written"]))
    steps = max(len(g.layers) for g in generations)
    seconds = float(reported["seconds"])
    most = SLACK * least * counted / ran + PER_QUESTION * steps * engine.backbone.depth
    if seconds > most and not claim.future:
        yield Finding(
            "uncounted",
            f"{1000 * seconds:.0f} ms of processor time for what takes {1000 * least:.0f} ms without it, and "
            f"{1000 * most:.0f} ms with what it counts",
        )


def _flops(claimed: Mapping[str, Any], replayed: Generation) -> str:
    flops = claimed["flops"]
    for name in ("layers", "attention", "kv"):
        if flops[name] != replayed.flops[name]:
            return f"{flops[name]:,} for {name} are claimed, {replayed.flops[name]:,} by the routes"
    if flops["heads"] < replayed.flops["heads"]:  # a look at an exit head costs more than what it spares
        return f"{flops['heads']:,} for heads are claimed, {replayed.flops['heads']:,} at least by the routes"
    if min(flops.values()) < 0 or claimed["layers"] != [float(n) for n in replayed.layers]:
        return "other layers are claimed than ran"
    return ""
