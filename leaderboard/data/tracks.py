"""Records as tracks: groups of rows that may be compared, labelled and ordered."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from dlbench.leaderboard.data.same_key import Place, place_of
from dlbench.leaderboard.formatting import slug
from dlbench.records.schema import Record, TaskUsed, Timing
from dlbench.stats.resample import FloatArray

Role = Literal["full", "dense", "method", "oracle"]
"""`full`: the base backbone at full depth; `dense`: a smaller model at its full depth; `oracle`: not deployable."""

CONTROLS = frozenset({"random_skip", "unified_skip"})
"""Methods that are controls by their name. `Row.control` says which rows are controls."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record as a board shows it.

    Attributes:
        model: the name of its model, with the beginning of its hash where another model of the board has that name.
        label: the method's name, and what sets it apart from its namesakes in the track.
        setting: its other parameters, in words.
        timings: by batch size.
        anchor: an id for links, unique on the page.
    """

    record: Record
    role: Role
    model: str
    label: str
    setting: str
    timings: Mapping[int, Timing]
    anchor: str

    @property
    def ok(self) -> bool:
        """Whether the budget was reached, and the row was not withdrawn."""
        return self.record.status == "ok" and self.record.withdrawn is None

    @property
    def control(self) -> bool:
        """Whether the row is a control: a baseline that decides without looking at its input.

        That is a method that says so of itself (its kind is "control"), one of `CONTROLS`, or a router with
        `fixed_input`, which learns a constant. This is the only definition: what a board calls a method is no control.
        """
        method = self.record.method
        return self.role == "method" and (
            method.name in CONTROLS or method.kind == "control" or method.params.get("fixed_input") is True
        )

    def shares(self, scores: npt.ArrayLike) -> FloatArray:
        """Return scores as shares of full depth's mean under the same scoring, both above chance.

        Where full depth did not run or scores nothing above chance, the scores above chance are returned undivided.
        """
        quality, chance = self.record.quality, self.record.task.chance
        scale = ((quality.full_mean if quality else None) or 0.0) - chance
        return (np.asarray(scores, dtype=np.float64) - chance) / (scale if scale > 0 else 1.0)

    @property
    def remarks(self) -> str:
        """The notes of the record, and whether it was withdrawn or missed its budget, in one line; mostly empty."""
        record = self.record
        marks = [] if record.withdrawn is None else [f"withdrawn: {record.withdrawn}"]
        marks += [] if record.status == "ok" else ["unreachable"]
        return "; ".join([*marks, *record.notes])


@dataclass(frozen=True, slots=True)
class Track:
    """Rows that may be compared: one task of one version, its documents, one base backbone, one set of rules."""

    name: str
    anchor: str
    task: TaskUsed
    rows: tuple[Row, ...]
    deployable: tuple[Row, ...] = field(init=False)
    oracles: tuple[Row, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "deployable", tuple(row for row in self.rows if row.role != "oracle"))
        object.__setattr__(self, "oracles", tuple(row for row in self.rows if row.role == "oracle"))

    def first(self, role: Role) -> Row | None:
        """Return the first row of that role, if any."""
        return next((row for row in self.rows if row.role == role), None)


def build_tracks(records: Iterable[Record], timings: Iterable[Timing] = ()) -> list[Track]:
    """Group records into tracks, label and order their rows: full, smaller dense models, methods by name and budget."""
    clock, records = list(timings), list(records)
    models = names_of_models(records)
    groups: dict[tuple[str, str, Place, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.task.name, record.task.version, place_of(record), record.task.metric].append(record)
    tracks: list[Track] = []
    anchors: dict[str, int] = defaultdict(int)
    for (task_name, _, (name, *_), _), members in sorted(groups.items(), key=lambda one: _most_first(one[0])):
        stem = slug(task_name) or "task"
        anchors[stem] += 1
        anchor = stem if anchors[stem] == 1 else f"{stem}-{anchors[stem]}"
        keys = {member.key for member in members}
        clocked = _on_one_machine([timing for timing in clock if timing.key in keys])
        tracks.append(Track(name, anchor, members[0].task, _rows(members, models, clocked, anchor)))
    return tracks


def _most_first(group: tuple[str, str, Place, str]) -> tuple[object, ...]:
    """A key that orders groups by task, version and track, and in a track by documents, those of most first."""
    task, version, (track, documents, drawn), metric = group
    return task, version, track, metric, -documents, drawn


def names_of_models(records: Iterable[Record]) -> dict[tuple[str, str], str]:
    """Return what to call each model, by its name and hash: folders of two models may have one name.

    The dtypes of a model are told apart beside its name, and in int8 its hash is another.
    """
    namesakes: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        namesakes[record.backbone.name, record.backbone.dtype].add(record.backbone.sha256)
    return {
        (name, sha256): name if len(hashes) == 1 else f"{name} ({sha256[:8]})"
        for (name, _), hashes in sorted(namesakes.items(), key=lambda one: len(one[1]))
        for sha256 in hashes
    }


def _on_one_machine(timings: Sequence[Timing]) -> Mapping[str, Mapping[int, Timing]]:
    """Return times by record key and batch size, of the machine that timed most; no two machines are mixed."""
    machines = Counter((timing.device, timing.threads, timing.machine) for timing in timings)
    machine = min(machines, key=lambda one: (-machines[one], one), default=None)
    by_key: dict[str, dict[int, Timing]] = defaultdict(dict)
    for timing in sorted(timings, key=lambda one: (one.key, one.kernels)):
        if (timing.device, timing.threads, timing.machine) == machine:
            by_key[timing.key].setdefault(timing.batch_size, timing)
    return by_key


def cut_prompts(records: Iterable[Record]) -> list[str]:
    """Return a line per task and backbone whose prompts did not all fit the context."""
    records = list(records)
    models = names_of_models(records)
    prompts = {
        (one.task.name, models[one.backbone.name, one.backbone.sha256], one.task.truncated, one.task.n)
        for one in records
    }
    return [
        f"{task} on {backbone}: {cut} of {n} prompts were cut to fit the context"
        for task, backbone, cut, n in sorted(prompts)
        if cut
    ]


def _rows(
    members: Sequence[Record],
    models: Mapping[tuple[str, str], str],
    clocked: Mapping[str, Mapping[int, Timing]],
    anchor: str,
) -> tuple[Row, ...]:
    def model_of(record: Record) -> str:
        return models[record.backbone.name, record.backbone.sha256]

    base = [record for record in members if record.backbone.sha256 == record.backbone.base_sha256]
    depth = max((record.backbone.layers for record in base), default=0)
    base_names = set(map(model_of, base))
    dtype = _reference_dtype(base or members)
    telling = _telling(members, model_of)
    policies: dict[str, set[str]] = defaultdict(set)
    prepared: list[tuple[Record, Role, str]] = []
    for record in members:
        role = _role(record, depth, dtype)
        model = model_of(record)
        label = _label(record, role, model, telling[record.method.name, model], base_names, dtype)
        prepared.append((record, role, label))
        policies[label].add(record.run.kv)
    prepared = [
        (record, role, f"{label} · kv={record.run.kv}" if len(policies[label]) > 1 else label)
        for record, role, label in prepared
    ]
    order = {"full": 0, "dense": 1, "method": 2, "oracle": 3}
    prepared.sort(key=lambda one: (order[one[1]], one[2], one[0].run.budget or 2.0, one[0].key))
    return tuple(
        Row(
            record=record,
            role=role,
            model=model_of(record),
            label=label,
            setting=_setting(record, telling[record.method.name, model_of(record)]),
            timings=clocked.get(record.key, {}),
            anchor=f"{anchor}-{number}",
        )
        for number, (record, role, label) in enumerate(prepared, start=1)
    )


def _reference_dtype(members: Sequence[Record]) -> str:
    """Return the widest dtype in which the base ran at full depth; labels name every other dtype."""
    known = ("float32", "bfloat16", "float16")
    dtypes = {record.backbone.dtype for record in members if record.method.name == "full"}
    dtypes = dtypes or {record.backbone.dtype for record in members}
    return min(dtypes, key=lambda one: (known.index(one) if one in known else len(known), one))


def _role(record: Record, depth: int, dtype: str) -> Role:
    if not record.method.deployable:
        return "oracle"
    if record.method.name != "full":
        return "method"
    derived = record.backbone.sha256 != record.backbone.base_sha256
    if not derived:
        return "full" if record.backbone.dtype == dtype else "method"
    # A fine-tuned backbone of the same depth is a method's own starting point, not a smaller dense model.
    return "dense" if record.backbone.layers < depth or not depth else "method"


def _telling(members: Iterable[Record], model_of: Callable[[Record], str]) -> dict[tuple[str, str], list[str]]:
    """Return, per method and model, the parameters whose values tell variants apart: they differ within a budget.

    Parameters that a fit has set are left out, since another seed sets them otherwise.
    """
    rows: dict[tuple[str, str], dict[float | None, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in members:
        rows[record.method.name, model_of(record)][record.run.budget].append(record)
    telling: dict[tuple[str, str], list[str]] = {}
    for which, by_budget in rows.items():
        names = {name for same in by_budget.values() for record in same for name in record.method.params}
        names -= {record.method.knob or "" for same in by_budget.values() for record in same}
        names -= {name for same in by_budget.values() for record in same if record.fit for name in record.fit.learnt}
        telling[which] = sorted(
            name
            for name in names
            if any(len({json.dumps(one.method.params.get(name)) for one in same}) > 1 for same in by_budget.values())
        )
    return telling


def label_meant(given: str, labels: Iterable[str]) -> str | None:
    """Return the label that a person typed, where `-` or `:`, with or without spaces, may stand for ` · `."""
    known = set(labels)
    if given in known:
        return given
    alike = [label for label in sorted(known) if _typed(label) == _typed(given)]
    return alike[0] if len(alike) == 1 else None


def _typed(label: str) -> str:
    return re.sub(r"\s*[·:-]\s*", "-", label.strip())


def _label(record: Record, role: Role, model: str, names: Iterable[str], base_names: set[str], dtype: str) -> str:
    parts = [model if role == "dense" else record.method.name]
    if role != "dense" and base_names and model not in base_names:
        parts.append(model)
    if record.backbone.dtype != dtype:
        parts.append(record.backbone.dtype)
    for name in names if role != "dense" else ():
        value = record.method.params.get(name)
        if value is True:
            parts.append(name)
        elif value is not None and value is not False:
            parts.append(str(value) if isinstance(value, str) else f"{name}={_short(value)}")
    return " · ".join(parts)


def _setting(record: Record, names: Sequence[str]) -> str:
    shown = {
        name: value for name, value in record.method.params.items() if name not in names and value not in (None, ())
    }
    knob = record.method.knob
    first = [knob] if knob in shown else []
    ordered = first + sorted(name for name in shown if name != knob)
    policy = [] if record.run.kv == "project" else [f"kv {record.run.kv}"]
    return ", ".join([f"{name} {_short(shown[name])}" for name in ordered] + policy)


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return " ".join(_short(one) for one in value)
    return str(value)
