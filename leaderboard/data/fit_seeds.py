"""Rows that differ in their fit seed alone: the one place where they are put together."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from dlbench.leaderboard.data.tracks import Role, Row

Key = TypeVar("Key")


class SettingKey(NamedTuple):
    """What the rows of one setting of a method have in common, in every track of a backbone.

    Attributes:
        parameters: as JSON, of rows without a budget, which nothing else tells apart. What a fit learnt is left out,
            since another seed learns something else.
        backbone: SHA-256, where the same label and budget ran on several backbones.
        record: the record's key, where rows of the setting share a seed.
    """

    role: Role
    label: str
    budget: float | None
    parameters: str
    backbone: str = ""
    record: str = ""


def group_seeds(rows: Iterable[Row]) -> dict[SettingKey, tuple[Row, ...]]:
    """Put rows together that repeat one setting under other fit seeds, in the order of their first rows.

    Rows of one label and budget repeat each other only on one backbone: fine-tuned weights that bear another model's
    name are another model, not another seed. And rows of one seed are no repeats, whatever else they have in common
    (of two versions of a method, say); then each row stands for itself.
    """
    groups: dict[SettingKey, tuple[Row, ...]] = {}
    for key, alike in _grouped(rows, _key).items():
        by_backbone = _grouped(alike, lambda row: row.record.backbone.sha256)
        for backbone, repeats in by_backbone.items():
            own = key._replace(backbone=backbone if len(by_backbone) > 1 else "")
            if len({row.record.run.seed for row in repeats}) == len(repeats):
                groups[own] = tuple(repeats)
            else:
                groups |= {own._replace(record=row.record.key): (row,) for row in repeats}
    return groups


def _grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    groups: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _key(row: Row) -> SettingKey:
    record = row.record
    parameters = ""
    if record.run.budget is None:
        learnt = record.fit.learnt if record.fit else ()
        given = {name: value for name, value in record.method.params.items() if name not in learnt}
        parameters = json.dumps(given, sort_keys=True)
    return SettingKey(row.role, row.label, record.run.budget, parameters)
