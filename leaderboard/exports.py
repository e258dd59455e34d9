"""The board's figures for other programs: CSV, JSON, LaTeX and BibTeX."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dlbench
from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.data.run_files import Runs
from dlbench.leaderboard.data.tracks import Row, Track
from dlbench.leaderboard.data.views import BoardEntry, BoardView, kind_of
from dlbench.records.jsonl import format_line


def table_csv(tracks: Iterable[Track]) -> str:
    """Return all rows of all tracks as one flat CSV table, for spreadsheets."""
    lines = [_flat(row, track) for track in tracks for row in track.rows]
    columns = list(dict.fromkeys(name for line in lines for name in line))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in line.items()} for line in lines)
    return buffer.getvalue()


def _flat(row: Row, track: Track) -> dict[str, object]:
    record = row.record
    flat: dict[str, object] = {
        "task": track.task.name,
        "track": track.name,
        "label": row.label,
        "method": record.method.name,
        "deployable": record.method.deployable,
        "backbone": record.backbone.name,
        "dtype": record.backbone.dtype,
        "kv": record.run.kv,
        "seed": record.run.seed,
        "setting": row.setting,
        "budget": record.run.budget,
        "status": record.status,
        "trust": record.trust,
        "metric": track.task.metric,
        "documents": track.task.n,
        "drawn": record.task.drawn,
        "sources": record.task.sources,
        "truncated": record.task.truncated,
        "fit_split": record.task.fit_split,
        "fit_overlap": record.task.fit_overlap,
    }
    quality, compute = record.quality, record.compute
    bounds = (quality.retained_ci95 if quality else None) or (None, None)
    flat |= {
        "quality": quality and quality.mean,
        "corpus": quality and quality.corpus,
        "retained": quality and quality.retained,
        "retained_low": bounds[0],
        "retained_high": bounds[1],
        "layer_share": compute and compute.layer_share,
        "flop_share_decode": compute and compute.flop_share_decode,
        "flop_share_total": compute and compute.flop_share_total,
        "pareto": row.pareto,
    }
    for batch, timing in sorted(row.timings.items()):
        flat[f"decode_ms_per_token_b{batch}"] = timing.decode_ms_per_token
        flat[f"ms_per_document_b{batch}"] = timing.ms_per_document
        flat[f"speedup_b{batch}"] = timing.speedup
    return flat | {"key": record.key, "notes": "; ".join(record.notes)}


def _cell(value: object) -> object:
    # A spreadsheet would run such text as a formula.
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return "" if value is None else value


def digests(runs: Runs) -> dict[str, str]:
    """Return SHA-256 of what a board is made of: the records, the times, the scores."""
    parts = {
        "records": (format_line(record) for record in runs.records),
        "timing": (format_line(timing) for timing in runs.timings),
        "scores": (json.dumps([key, runs.scores[key]], sort_keys=True, default=dict) for key in sorted(runs.scores)),
    }
    if any(runs.sources.values()):
        parts["sources"] = (json.dumps([one, found], sort_keys=True) for one, found in sorted(runs.sources.items()))
    found = {}
    for name, lines in parts.items():
        digest = hashlib.sha256()
        for line in lines:
            digest.update(line.encode() + b"\n")
        found[name] = digest.hexdigest()
    return found


def board_json(runs: Runs, views: Sequence[BoardView], found: Mapping[str, Standings]) -> str:
    """Return the whole board as JSON: every view with every row's figures, ranks and intervals, rounded.

    Figures have five digits: more would change with the machine that counts them.
    """
    views_json = []
    for view in views:
        head = {
            "name": view.slug,
            "title": view.title,
            "backbone": view.backbone,
            "metric": view.metric,
            "documents": view.documents,
            "tracks": [track.name for track in view.tracks],
        }
        methods = ",\n".join(_json(_summary_json(one)) for one in found[view.slug].summaries)
        rows = ",\n".join(_json(_entry_json(entry, found[view.slug])) for entry in view.entries)
        views_json.append(f'{_json(head)[:-1]},\n"methods":[\n{methods}\n],\n"rows":[\n{rows}\n]}}')
    # One line per row: a repository keeps this file, and people read how it changes.
    head = {"dlbench": dlbench.__version__, "sha256": digests(runs)}
    return f'{_json(head)[:-1]},\n"views":[\n' + ",\n".join(views_json) + "\n]}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _entry_json(entry: BoardEntry, found: Standings) -> dict[str, Any]:
    place = found.places.get(entry.id)
    front = found.fronts.get(entry.id)
    bounds = entry.bounds or found.bounds.get(entry.id)
    return {
        "id": entry.id,
        "label": entry.label,
        "method": entry.method,
        "kind": kind_of(entry),
        "budget": entry.budget,
        "status": "ok" if entry.ok else "unreachable",
        "trust": entry.trust,
        "seeds": entry.repeats,
        "score": _round(entry.score),
        "retained": _round(entry.retained),
        "retained_ci95": None if bounds is None else [_round(one) for one in bounds],
        "costs": {key: _round(value) for key, value in sorted(entry.costs.items())},
        "rank": None if place is None else place.rank,
        "rank_interval": None if place is None else [place.low, place.high],
        "tie_letters": None if place is None else place.letters,
        "on_front": None if front is None else front[0],
        "on_front_probability": None if front is None else _round(front[1]),
        "keys": sorted({row.record.key for rows in entry.rows for row in rows}),
    }


def _summary_json(one: Any) -> dict[str, Any]:
    return {
        "label": one.label,
        "kind": one.kind,
        "rank": None if one.place is None else one.place.rank,
        "rank_interval": None if one.place is None else [one.place.low, one.place.high],
        "area": _interval(one.area),
        "enough": {
            f"{target:g}": {"layers": _round(least.layers), "total": _round(least.total), "reason": least.reason}
            for target, least in sorted(one.enough.items())
        },
        "gap_closed": {f"{budget:g}": _interval(gap) for budget, gap in sorted(one.gaps.items())},
    }


def _interval(one: Any) -> dict[str, float | None] | None:
    return None if one is None else {"estimate": _round(one.estimate), "low": _round(one.low), "high": _round(one.high)}


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "·": r"$\cdot$",
}


def tex(text: str) -> str:
    """Return a text for LaTeX: nothing in it is a command."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def table_latex(view: BoardView, found: Standings) -> str:
    """Return a view as a LaTeX table (booktabs): what every method keeps at every budget, with its interval."""
    budgets = sorted({entry.budget for entry in view.of("method", "oracle") if entry.budget is not None})
    lines = [
        f"% {tex(view.title)} on {tex(view.backbone)}: quality kept, per cent of full depth, with 95 % intervals",
        rf"\begin{{tabular}}{{l{'r' * len(budgets)}r}}",
        r"\toprule",
        " & ".join(["method", *(rf"{100 * one:g}\,\%" for one in budgets), "other"]) + r" \\",
        r"\midrule",
    ]
    before = ""
    for label in dict.fromkeys(entry.label for entry in view.entries):
        mine = [entry for entry in view.entries if entry.label == label]
        if before and before != mine[0].role and "oracle" in (before, mine[0].role):
            lines.append(r"\midrule")
        before = mine[0].role
        cells = {entry.budget: _latex_cell(entry, found) for entry in mine}
        line = [tex(label), *(cells.get(one, "--") for one in (*budgets, None))]
        lines.append(" & ".join(line) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_cell(entry: BoardEntry, found: Standings) -> str:
    if entry.retained is None:
        return "--"
    bounds = entry.bounds or found.bounds.get(entry.id)
    span = "" if bounds is None else rf" {{\scriptsize [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]}}"
    mark = "" if entry.ok else r"$^\dagger$"
    return f"{100 * entry.retained:.1f}{mark}{span}"


def bibtex(runs: Runs, papers: Iterable[str]) -> str:
    """Return what to cite: this board, named by its records, and the papers that its methods name."""
    digest = digests(runs)["records"]
    entries = [
        f"@misc{{dlbench-board-{digest[:8]},\n"
        "  title = {{dlbench leaderboard}},\n"
        f"  note = {{{len(runs.records)} records, SHA-256 {digest}, built by dlbench {tex(dlbench.__version__)}}}\n}}"
    ]
    for paper in sorted(set(papers)):
        entries.append(
            f"@misc{{arxiv-{paper},\n  title = {{{{arXiv:{paper}}}}},\n  eprint = {{{paper}}},\n"
            f"  archivePrefix = {{arXiv}},\n  url = {{https://arxiv.org/abs/{paper}}}\n}}"
        )
    return "\n\n".join(entries) + "\n"
