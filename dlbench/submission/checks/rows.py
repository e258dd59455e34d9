"""Checks of rows against what they say that they are made of: key, track, source, weights, fit, task."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dlbench.data.rows.sources import clusters
from dlbench.evaluation.aggregate import mean_chance, reached
from dlbench.records.schema import Record
from dlbench.records.track import PROTOCOL, content_key, track_name
from dlbench.registry import provenance, source_file
from dlbench.submission.contents import Submission, TrackDocuments
from dlbench.submission.manifest import MethodCode, RowContent
from dlbench.submission.untrusted import MOST_HEADER, load_json, weights_sha256


def same(one: float | None, other: float | None) -> bool:
    """Whether two figures are one, but for the rounding of another processor."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


def row_name(record: Record) -> str:
    """Name a row in messages."""
    budget = "" if record.run.budget is None else f" at {record.run.budget:g}"
    return f"{record.method.name}{budget} on {record.task.name} ({record.key[:8]})"


def check_rows(submission: Submission) -> None:
    """Check every record by itself and against the manifest."""
    add, seen = submission.faults.add, set()
    for record in submission.records:
        where = row_name(record)
        identity = (record.key, record.track, record.method.name, record.run.budget)
        if identity in seen:
            add("record-twice", where, "records.jsonl holds the row twice")
        seen.add(identity)
        if not record.method.deployable or record.method.kind not in ("method", "dense", "control"):
            add("oracle-row", where, "the row cannot be deployed")
        if record.tune is not None or record.withdrawn is not None:
            add("beyond-samples", where, "it has a score on the tune part, or is withdrawn")
        if record.trust != "self-reported":
            add("trust-claimed", where, f"it claims to be {record.trust}")
        own = submission.track(record.track)
        row = submission.manifest.rows.get(record.key)
        if row is None:
            add("content-missing", where, "the manifest has no entry for its key")
        else:
            _check_content(submission, record, row, own)
        if own is not None:
            _check_task(submission, record, own, row)
        costs = submission.manifest.costs.get(record.backbone.sha256)
        if costs is None or costs.depth != record.backbone.layers:
            add("costs-missing", where, "the manifest has no sizes of a backbone of this hash and depth")
        _check_status(submission, record)


def _check_content(submission: Submission, record: Record, row: RowContent, own: TrackDocuments | None) -> None:
    where, content, add = row_name(record), row.content, submission.faults.add
    if content_key(content) != record.key:
        add("content-key", where, "the hash of its content is another key")
    if content.get("protocol") != PROTOCOL:
        add("protocol", where, f"protocol {content.get('protocol')!r}, this dlbench has {PROTOCOL}")
    fit = _fit_file(submission, record, row)
    try:
        weights = weights_sha256(fit)
    except (ValueError, OSError) as error:
        add("weights-invalid", f"{row.fit}/weights.safetensors", str(error))
        weights = ""
    method = content.get("method")
    expected: dict[str, Any] = {
        "backbone": record.backbone.sha256,
        "dtype": record.backbone.dtype,
        "prompt": record.run.prompt,
        "kv": record.run.kv,
        "seed": record.run.seed,
        "sample": None,
    }
    if isinstance(method, list) and len(method) == 3:
        expected["method"] = [record.method.source_sha256, dict(record.method.params), method[2]]
        if weights and method[2] != weights:
            add("weights-differ", where, "the hash of the packed weights is not the one in its key")
    else:
        add("content-differs", where, "its content has no method")
    if own is not None:
        expected["task"] = [own.task.name, own.task.version, own.sha256, own.task.max_new_tokens]
    versions = content.get("versions")
    expected["versions"] = {name: record.env.get(name) for name in versions} if isinstance(versions, dict) else {}
    wrong = [name for name, value in expected.items() if _plain(content.get(name)) != _plain(value)]
    if "task" in wrong:
        add("documents-differ", where, "its key was made on other documents, or on another version of the task")
        wrong.remove("task")
    if wrong:
        add("content-differs", where, f"{', '.join(wrong)}: the record has other values than its key")
    _check_code(submission, record, row)


def _plain(value: Any) -> str:
    """A value as JSON has it: tuples are lists."""
    return json.dumps(value, sort_keys=True)


def _fit_file(submission: Submission, record: Record, row: RowContent) -> Path | None:
    """The weights of a row's fit, after its facts have been compared with the record; None where it has none."""
    if row.fit is None:
        return None
    add, path = submission.faults.add, f"{row.fit}/fit.json"
    if path not in submission.intact:
        add("fit-missing", row_name(record), f"{path} is not in the submission")
        return None
    file = submission.folder / path
    try:
        if file.stat().st_size > MOST_HEADER:
            raise ValueError("it is too large")
        facts = load_json(file.read_bytes())
        if not isinstance(facts, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        add("line-invalid", path, str(error))
        return None
    fit = record.fit
    stated = None if fit is None else [fit.seed, fit.target, fit.realised, fit.learnt_from, fit.tuned_on, fit.tokens]
    kept = [facts.get(name) for name in ("seed", "budget", "realised", "learnt_from", "tuned_on", "tokens")]
    if stated is not None and stated != kept:
        add("fit-differs", row_name(record), f"{path} says otherwise how the fit was made")
    weights = f"{row.fit}/weights.safetensors"
    return submission.folder / weights if weights in submission.intact else None


def _check_code(submission: Submission, record: Record, row: RowContent) -> None:
    where, add = row_name(record), submission.faults.add
    code = submission.manifest.code.get(row.method)
    listed = {} if code is None else {file.path: file.label for file in code.files}
    if code is None or not set(listed) | {code.entry} <= submission.intact or code.entry not in listed:
        add("source-missing", where, f"the source of {row.method!r} is not whole")
    elif packed_source_sha256(submission, code) != record.method.source_sha256:
        add("source-hash", where, f"the packed source of {row.method!r} has another hash than the row names")


def packed_source_sha256(submission: Submission, code: MethodCode) -> str:
    """Return the hash of packed source, as `dlbench.evaluation.settings.source_sha256` has it; nothing is executed."""
    files = [(file.label, source_file.read(submission.folder / file.path).sha256) for file in code.files]
    more = [] if code.origin in ("file", "built-in") else [code.origin]
    return provenance.digest(files, code.releases, *more)


def _check_task(submission: Submission, record: Record, own: TrackDocuments, row: RowContent | None) -> None:
    where, task, add = row_name(record), record.task, submission.faults.add
    if task.name != own.task.name or task.version != own.task.version:
        add("task-version", where, f"{task.name}@{task.version}; here it is {own.task.name}@{own.task.version}")
        return
    generation = "" if row is None else str(row.content.get("generation", ""))
    expected = track_name(
        record.backbone.base_sha256, own.task, own.sha256, prompt=record.run.prompt, generation=generation
    )
    if record.track != expected:
        add("track", where, f"track {record.track!r} should be {expected!r}")
    sources = clusters([d.id for d in own.documents], {d.id: d.source for d in own.documents})
    facts: dict[str, tuple[Any, Any]] = {
        "metric": (task.metric, own.task.metric),
        "n": (task.n, len(own.documents)),
        "of": (task.of, own.of),
        "chance": (task.chance, mean_chance(own.documents) if own.documents else None),
        "sources": (task.sources, None if sources is None else len(set(sources))),
        "fit_split": (task.fit_split, own.task.fit_split),
        "max_new_tokens": (record.run.max_new_tokens, own.task.max_new_tokens),
    }
    wrong = [f"{name} is {claimed}, not {known}" for name, (claimed, known) in facts.items() if claimed != known]
    if wrong:
        add("task-facts", where, "; ".join(wrong))


def _check_status(submission: Submission, record: Record) -> None:
    """A row is marked unreachable where it misses its budget, and only there."""
    full = submission.full(record.track)
    budget, compute = record.run.budget, record.compute
    if compute is None or full is None:
        if compute is None:
            submission.faults.add("quality-differs", row_name(record), "the row has no figures")
        return
    missed = (
        record.method.kind == "method"
        and budget is not None
        and not reached(compute.layer_share, budget, full.backbone.layers)
    )
    if (record.status == "unreachable") != missed:
        submission.faults.add(
            "status",
            row_name(record),
            f"status {record.status!r} with a layer share of {compute.layer_share:.3f} at budget {budget}",
        )
