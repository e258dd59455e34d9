"""Build the site: one page that works from a folder, without scripts, without a request to anywhere."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import dlbench
from dlbench.errors import DlbenchError
from dlbench.leaderboard import chart, figures
from dlbench.leaderboard.claims import Claim, claims
from dlbench.leaderboard.runs import Runs, read_runs
from dlbench.leaderboard.tracks import Row, Track, build_tracks, cut_prompts
from dlbench.lines import write_lines, write_text
from dlbench.records import Record


class BoardError(DlbenchError):
    """The site can't be built there."""


def build(run_dirs: Sequence[Path], out: Path) -> Path:
    """Build the site of one or several run folders and return its index page.

    The same records give the same bytes. Beside the page stand `records.jsonl`, `records.csv` and, where anything was
    timed, `timing.jsonl`: merged over the folders.

    Raises:
        RecordError: a folder holds no records, or bad ones; the message names file and line.
        BoardError: `out` is no place for a site.
    """
    if out.exists() and not out.is_dir():
        raise BoardError(f"{out}: a file is in the way, name a folder")
    if any(out.resolve() == run_dir.resolve() for run_dir in run_dirs):
        raise BoardError(f"{out}: a run folder can't hold its own site, name another folder such as {out / 'site'}")
    runs = read_runs(run_dirs)
    page = render(runs)
    write_lines(out / "records.jsonl", runs.records)
    write_text(out / "records.csv", table_csv(build_tracks(runs.records, runs.timings)))
    if runs.timings:
        write_lines(out / "timing.jsonl", runs.timings)
    else:
        (out / "timing.jsonl").unlink(missing_ok=True)
    # Last: a page that is there has all that it links to.
    write_text(out / "index.html", page)
    return out / "index.html"


def render(runs: Runs) -> str:
    """Return the page as HTML."""
    tracks = build_tracks(runs.records, runs.timings)
    colours = chart.method_colours(tracks)
    said: dict[tuple[str, str], list[Claim]] = defaultdict(list)
    for claim in claims(runs.records, runs.scores):
        said[claim.task, claim.track].append(claim)
    environment = Environment(
        loader=PackageLoader("dlbench.leaderboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        score=figures.score,
        share=figures.share,
        ratio=figures.ratio,
        budget=figures.budget,
        milliseconds=figures.milliseconds,
        speedup=figures.speedup,
    )
    return environment.get_template("index.html.j2").render(
        version=dlbench.__version__,
        sections=[_section(track, colours, said[track.task.name, track.name]) for track in tracks],
        records=runs.records,
        backbones=sorted({_backbone(record) for record in runs.records}),
        methods=sorted({record.method.name for record in runs.records}),
        documents=sum(track.task.n for track in tracks),
        provenance=_provenance(runs),
        versions=sorted({record.env["dlbench"] for record in runs.records if "dlbench" in record.env}),
        colours=chart.COLOURS,
        timed=bool(runs.timings),
    )


def _section(track: Track, colours: dict[str, tuple[str, str]], said: Sequence[Claim]) -> dict[str, Any]:
    drawn = chart.svg(track, colours)
    first = track.rows[0].record
    return {
        "track": track,
        # Safe: Vega and `chart` escape every text in it.
        "svg": None if drawn is None else Markup(drawn),
        "marks": chart.marks(track, colours),
        "claims": said,
        "run": first.run,
        "warnings": cut_prompts(row.record for row in track.rows),
        "places": figures.decimals(row.record.quality.mean for row in track.rows if row.record.quality),
        "parts": [
            _part("Deployable", "", track.deployable),
            _part(
                "Oracles", "They see what deployment cannot. Ceilings to measure against, not entries.", track.oracles
            ),
        ],
    }


def _part(title: str, remark: str, rows: Sequence[Row]) -> dict[str, Any]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.label].append(row)
    batches = sorted({batch for row in rows for batch in row.timings})
    return {"title": title, "remark": remark, "groups": list(groups.items()), "batches": batches}


def _backbone(record: Record) -> tuple[str, str, int, str, str]:
    one = record.backbone
    return one.name, one.family, one.layers, one.dtype, one.sha256


def _provenance(runs: Runs) -> list[tuple[str, list[str]]]:
    found: dict[str, set[str]] = defaultdict(set)
    for record in runs.records:
        for name, value in record.env.items():
            found[name].add(value)
    for timing in runs.timings:
        found["timed on"].add(f"{timing.device}, {timing.threads} threads, {timing.kernels} layers")
    return [(name, sorted(values)) for name, values in sorted(found.items())]


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
        "setting": row.setting,
        "budget": record.run.budget,
        "status": record.status,
        "metric": track.task.metric,
        "documents": track.task.n,
        "truncated": record.task.truncated,
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
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
        return f"'{value}"
    return "" if value is None else value
