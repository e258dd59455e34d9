"""`dlbench validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.terminal import at_home, print_json
from dlbench.errors import DlbenchError
from dlbench.system import offline as hub


def validate(
    folder: Annotated[
        Path, typer.Argument(callback=at_home, help="A submission: what `dlbench run --official` wrote.")
    ],
    rules: Annotated[
        str,
        typer.Option(help="official: the board's protocol; consistent: any run, whose figures must be its samples'."),
    ] = "official",
    data_dir: Annotated[
        str | None, typer.Option(envvar="DLBENCH_DATA", help="Folder of local mirrors, tried before the hub.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use mirrors, files and caches only, never the hub.")
    ] = False,
    badge: Annotated[Path | None, typer.Option(callback=at_home, help="File to write the badge to, if valid.")] = None,
    who: Annotated[str, typer.Option(help="Who validates, for the badge.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Check a submission: files, schema, documents, scores, shares and FLOPs; nothing of it is executed.

    All faults are listed at once, each kind with its code and what to do. Exit code 2 if there are any.
    """
    from dlbench.data.task_options import Sources
    from dlbench.submission.report import fault_lines
    from dlbench.submission.validation import validate

    if rules not in ("official", "consistent"):
        raise DlbenchError(f"rules {rules!r}: give official or consistent")
    if offline:
        hub.enforce()
    result = validate(folder, rules=rules, sources=Sources(data_dir=data_dir))  # type: ignore[arg-type]  # checked
    if as_json:
        listed = [{"code": f.code, "where": f.where, "what": f.what, "remedy": f.remedy} for f in result.faults.faults]
        print_json({"valid": result.passed, "counts": dict(result.faults.counts), "faults": listed})
    else:
        for line in fault_lines(result):
            typer.echo(line)
    if not result.passed:
        total = result.faults.counts.total()
        raise DlbenchError(f"{folder}: {total:,} faults of {len(result.faults.codes)} kinds; it cannot be published")
    assert result.manifest is not None
    if badge is not None:
        from dlbench.submission.badge import badge as badge_of
        from dlbench.submission.badge import write_badge

        write_badge(badge, badge_of(result.manifest.seal, "validated", who))
    if not as_json:
        rows = len(result.manifest.rows)
        typer.echo(f"valid: {rows} rows, sealed {result.manifest.seal[:16]}; next: dlbench verify {folder}")
