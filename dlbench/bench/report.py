"""The results on the terminal and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dlbench import __version__
from dlbench.bench.clock import Repeats
from dlbench.bench.targets import TARGETS
from dlbench.bench.workbench import Ratio, Series, Workbench

_HINTS = (
    "middle half: from the first to the third quartile",
    "warm-up: first runs, compilation and capture, in no median",
)
ROOMY = 110
"""Width of the terminal, in columns, at which the table has a column for the meaning of each ratio."""


def as_json(bench: Workbench, machine: Mapping[str, Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return everything that was measured, with medians, quartiles and repeats.

    Args:
        bench: holds the results.
        machine: device, threads and versions.
        seconds: wall time of each part.
    """
    return {
        "quick": bench.sizes.quick,
        "machine": dict(machine),
        "ratios": {name: ratio.value for name, ratio in _in_order(bench).items()},
        "ratio_details": {name: _ratio_json(ratio) for name, ratio in _in_order(bench).items()},
        "measurements": [_series_json(series) for series in bench.series],
        "notes": bench.notes,
        "sizes": dataclasses.asdict(bench.sizes),
        "seconds": dict(seconds),
    }


def _series_json(series: Series) -> dict[str, Any]:
    return {
        "part": series.part,
        "group": series.group,
        "name": series.name,
        "unit": series.unit,
        "warm_up_s": series.warm_up_s,
        **_repeats_json(series.repeats),
    }


def _ratio_json(ratio: Ratio) -> dict[str, Any]:
    return {
        "meaning": ratio.target.meaning,
        "how": ratio.how,
        "promise": ratio.target.bound,
        "met": ratio.met,
        **_repeats_json(ratio.repeats),
    }


def _repeats_json(repeats: Repeats) -> dict[str, Any]:
    return {"median": repeats.median, "q25": repeats.low, "q75": repeats.high, "values": list(repeats.values)}


def _in_order(bench: Workbench) -> dict[str, Ratio]:
    return {target.name: bench.ratios[target.name] for target in TARGETS if target.name in bench.ratios}


def show(console: Console, bench: Workbench, machine: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
    """Print times, ratios, promises and remarks."""
    console.print()
    console.print(_headline(bench, machine), highlight=False)
    console.print(_times(bench))
    console.print()
    if bench.ratios:
        console.print(_ratios(bench, roomy=console.width >= ROOMY))
        console.print()
    spent = ", ".join(f"{part} {took:.0f} s" for part, took in seconds.items())
    remarks = [*_HINTS, *bench.notes, f"took {sum(seconds.values()):.0f} s: {spent}"]
    for note in remarks:
        remark = Table.grid(padding=(0, 1, 0, 0))
        remark.add_row(Text("·", style="dim"), Text(note, style="dim"))
        console.print(remark)
    if promised := [ratio for ratio in bench.ratios.values() if ratio.met is not None]:
        kept = sum(bool(ratio.met) for ratio in promised)
        missed = ", ".join(name for name, ratio in _in_order(bench).items() if ratio.met is False)
        console.print(f"\n[bold]{kept} of {len(promised)} promises met[/]" + (f"; missed: {missed}" if missed else ""))


def _headline(bench: Workbench, machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if name != "dlbench")
    place = f"{machine['processor']} ({machine['device']}), {machine['threads']} of {machine['cores']} threads"
    place += f", load {machine['load']:.1f} before it began"
    kind = "quick" if bench.sizes.quick else "full"
    return (
        f"[bold]dlbench {__version__} bench[/] · {kind}, {bench.dtype}\n{escape(place)}\n[dim]{escape(versions)}[/]\n"
    )


def _times(bench: Workbench) -> Table:
    table = _table("measured")
    for heading in ("median", "middle half", "n", "warm-up"):
        table.add_column(heading, justify="right", no_wrap=True)
    for (_, group, unit), several in groupby(bench.series, key=lambda s: (s.part, s.group, s.unit)):
        table.add_row(f"[bold]{escape(group)}[/] · [dim]{unit}[/]")
        for series in several:
            repeats = series.repeats
            first = "" if series.warm_up_s is None else f"{series.warm_up_s:.1f} s"
            spread = f"{_number(repeats.low)} – {_number(repeats.high)}" if len(repeats.values) > 1 else ""
            table.add_row(f"  {escape(series.name)}", _number(repeats.median), spread, str(len(repeats.values)), first)
        table.add_section()
    return table


def _ratios(bench: Workbench, roomy: bool) -> RenderableType:
    ratios = _in_order(bench)
    table = _table("ratio, higher is better")
    for heading in ("median", "middle half", "promise", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    if roomy:
        table.add_column("what it says", overflow="fold", ratio=1)
    for _, several in groupby(ratios.items(), key=lambda item: item[1].target.part):
        for name, ratio in several:
            table.add_row(*_ratio_row(name, ratio, roomy))
        table.add_section()
    return table if roomy else Group(table, *_legend(ratios))


def _ratio_row(name: str, ratio: Ratio, roomy: bool) -> list[str]:
    repeats, bound = ratio.repeats, ratio.target.bound
    spread = f"{_number(repeats.low)} – {_number(repeats.high)}" if len(repeats.values) > 1 else ""
    verdict = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[ratio.met]
    says = escape("; ".join(filter(None, (ratio.target.meaning, ratio.how))))
    title = name if bound is not None else f"[dim]{name}[/]"
    promise = "" if bound is None else f"≥ {bound:.2f}"
    row = [title, f"[bold]{_number(ratio.value)}[/]", spread, promise, verdict]
    return [*row, f"[dim]{says}[/]"] if roomy else row


def _legend(ratios: Mapping[str, Ratio]) -> list[RenderableType]:
    """The meaning of the promised ratios, below a table without room for it."""
    lines: list[RenderableType] = []
    for name, ratio in ratios.items():
        if ratio.met is not None and not ratio.target.meaning.startswith("the same"):
            lines += [Text(name, style="dim"), Padding(Text(ratio.target.meaning, style="dim"), (0, 0, 0, 2))]
    return [Text(), *lines]


def _table(first: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), header_style="bold dim")
    table.add_column(first, overflow="fold")
    return table


def _number(value: float) -> str:
    """A number with about three digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
