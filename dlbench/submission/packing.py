"""Pack a run into a submission folder: what its figures rest on, and one sealed manifest of hashes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dlbench import __version__
from dlbench.data.thinking import Thinking
from dlbench.engine.flops.costs import Costs
from dlbench.errors import DlbenchError
from dlbench.evaluation.settings import Conditions, Setting
from dlbench.method import Action
from dlbench.records.checksum import read_samples
from dlbench.records.jsonl import read_lines, write_lines
from dlbench.records.record import Hardware
from dlbench.records.schema import Asked, Record, Timing
from dlbench.records.track import PROTOCOL
from dlbench.registry import methods as registry
from dlbench.registry import provenance
from dlbench.submission.layer_costs import LayerCosts
from dlbench.submission.manifest import FILE, SAFE_PATH, SCHEMA, canonical, seal_of
from dlbench.system.files import SCRATCH, write_text
from dlbench.system.hardware import hardware

ISOLATION = "methods ran in the process of the harness"
AUDITED = f"{ISOLATION}, and were audited in one of their own before"
"""How methods are kept apart from references, weights and counters: in any run, and in an official one."""


@dataclass(frozen=True)
class PackedJob:
    """One task on one backbone of a run."""

    conditions: Conditions
    costs: Costs
    settings: Sequence[Setting]
    """With their content keys."""
    artifacts: Mapping[str, Path]
    """Content key → folder of the fit."""
    thinking: Thinking | None = None
    options: Mapping[str, int | None] = field(default_factory=dict)
    """`fewshot` and `max_new_tokens`, where the run asked for others than the task's."""


def pack(
    run: Path, out: Path, jobs: Sequence[PackedJob], *, official: bool, author: str, options: Mapping[str, Any]
) -> Path:
    """Write the submission of a finished run.

    Args:
        run: the run's folder.
        out: folder to write; one that an earlier packing wrote is replaced.
        jobs: of the run.
        official: whether the run followed the official protocol.
        author: who submits.
        options: of the run, for people.

    Raises:
        DlbenchError: the folder holds something else, or a method's source cannot be packed.
    """
    if out.exists() and any(out.iterdir()) and not (out / FILE).is_file():
        raise DlbenchError(f"{out} holds files but no {FILE}: a submission is written to a new or empty folder")
    made = out.with_name(f".{out.name}{SCRATCH}")  # a folder that was left half written would block the next attempt
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    settings = {s.key: (job, s) for job in jobs for s in job.settings}
    # Scores on the tune part are left out: nothing in the submission shows that they are true.
    read = (r.model_copy(update={"tune": None}) for r in read_lines(run / "records.jsonl", Record))
    records = [r for r in read if r.key in settings and r.method.deployable]
    write_lines(made / "records.jsonl", records)
    keys = {record.key for record in records}
    asked = list(read_lines(run / "documents.jsonl", Asked))
    write_lines(made / "documents.jsonl", asked)
    if (run / "timing.jsonl").is_file():
        write_lines(made / "timing.jsonl", (t for t in read_lines(run / "timing.jsonl", Timing) if t.key in keys))
    ids = {record.key: [a.id for a in asked if a.track == record.track] for record in records}
    for key in sorted(keys):
        samples = {s.id: s for s in read_samples(run / "samples" / f"{key}.jsonl")}
        write_lines(made / "samples" / f"{key}.jsonl", (samples[id_] for id_ in ids[key]))
    given = {setting.given for key, (_, setting) in settings.items() if key in keys}
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "dlbench": __version__,
        "protocol": PROTOCOL,
        "official": official,
        "author": author,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "isolation": AUDITED if official else ISOLATION,
        "hardware": Hardware(**hardware(str(jobs[0].conditions.backbone.device))).model_dump(),
        "options": json.loads(json.dumps(dict(options), default=str)),
        "code": {registry.name_of(one): _pack_code(one, made) for one in sorted(given)},
        "rows": {key: _row(*settings[key], made) for key in sorted(keys)},
        "costs": {job.conditions.backbone.sha256: layer_costs(job.costs).model_dump() for job in jobs},
        "tracks": {job.conditions.track: _track(job) for job in jobs},
    }
    content["files"] = _files(made)
    content["seal"] = seal_of(content)
    write_text(made / FILE, canonical(content))
    shutil.rmtree(out, ignore_errors=True)
    made.rename(out)
    return out


def layer_costs(costs: Costs) -> LayerCosts:
    """Return the sizes of a backbone."""
    return LayerCosts(
        attention=tuple(map(int, costs.parts[int(Action.ATTN)])),
        mlp=tuple(map(int, costs.parts[int(Action.MLP)])),
        fill=tuple(map(int, costs.fill)),
        attends=tuple(map(bool, costs.attends)),
        windows=tuple(costs.windows),
        per_key=tuple(map(int, costs.attention_per_key)),
        expansion=tuple(map(int, costs.expansion_per_key)),
        head=int(costs.head),
        input=int(costs.input),
        vocabulary=int(costs.vocabulary),
    )


def _track(job: PackedJob) -> dict[str, Any]:
    thinking = job.thinking
    marks = None if thinking is None else {"start": thinking.start, "end": thinking.end, "special": thinking.special}
    chat = job.conditions.chat_sha256 is not None
    return {"task": job.conditions.task.name, "chat": chat, "thinking": marks, **job.options}


def _row(job: PackedJob, setting: Setting, out: Path) -> dict[str, Any]:
    """The manifest's entry of a row; the fit that it comes from is copied."""
    fit = job.artifacts.get(setting.key)
    if fit is not None:
        to = out / "fits" / fit.name
        to.mkdir(parents=True, exist_ok=True)
        for name in ("fit.json", "weights.safetensors"):
            if (fit / name).is_file():
                shutil.copyfile(fit / name, to / name)
    return {
        "method": registry.name_of(setting.given),
        "content": json.loads(json.dumps(job.conditions.content(setting))),
        "fit": None if fit is None else f"fits/{fit.name}",
    }


def _pack_code(given: str, out: Path) -> dict[str, Any]:
    """Copy the source of a method, and return the manifest's entry.

    Raises:
        DlbenchError: a file of it lies outside of its folder, or has a name that a submission may not hold.
    """
    source, name = registry.locate(given), registry.name_of(given)
    if source.origin == "built-in":
        assert source.path is not None
        walk = provenance.built_in_walk(source.path)
    elif source.origin == "file":
        assert source.path is not None
        walk = provenance.file_walk(source.path)
    else:
        walk = provenance.installed_walk(source.module, source.origin)
    files, entry = [], None
    for file, (label, _) in sorted(walk.files.items(), key=lambda item: item[1]):
        path = f"code/{name}/{label}"
        if ".." in label.split("/") or not SAFE_PATH.fullmatch(path):
            raise DlbenchError(
                f"method {name!r}: {file} cannot be packed as {label!r}: name files in ASCII letters, digits, _ - ., "
                "and keep all of them in the method's folder or package"
            )
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, out / path)
        files.append({"label": label, "path": path})
        if source.path is not None and file == source.path.resolve():
            entry = path
    if entry is None:
        raise DlbenchError(f"method {name!r}: the file that defines it cannot be found: put it in a plain .py file")
    return {
        "origin": source.origin,
        "entry": entry,
        "files": files,
        "releases": sorted(walk.others),
        "class_name": source.class_name,
    }


def _files(out: Path) -> dict[str, Any]:
    packed = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        packed[path.relative_to(out).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    return packed
