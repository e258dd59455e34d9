"""`dlbench validate` and `dlbench verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlbench.commands.options import declared
from dlbench.commands.options.terminal import at_home, batch_size_of, echo, print_json, unique
from dlbench.errors import DlbenchError
from dlbench.system import offline as hub
from dlbench.terminal.said import say

if TYPE_CHECKING:
    from dlbench.submission.validation import Validation


def validate(
    folder: Annotated[
        Path, typer.Argument(callback=at_home, help="A submission: what `dlbench run --official` wrote.")
    ],
    rules: Annotated[
        str,
        typer.Option(help="official: the board's protocol; consistent: any run, whose figures must be its samples'."),
    ] = "official",
    data_dir: declared.DataDir = None,
    offline: declared.Offline = False,
    badge: Annotated[Path | None, typer.Option(callback=at_home, help="File to write the badge to, if valid.")] = None,
    who: Annotated[str, typer.Option(help="Who validates, for the badge.")] = "",
    as_json: declared.AsJson = False,
) -> None:
    """Check a submission: files, schema, documents, scores, shares and FLOPs; nothing of it is executed.

    All faults are listed at once, each kind with its code and what to do. Exit code 2 if there are any.
    """
    from dlbench.submission.report import fault_lines

    result = _validated(folder, rules, data_dir, offline)
    if as_json:
        listed = [{"code": f.code, "where": f.where, "what": f.what, "remedy": f.remedy} for f in result.faults.faults]
        print_json({"valid": result.passed, "counts": dict(result.faults.counts), "faults": listed})
    else:
        for line in fault_lines(result):
            echo(line)
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
        echo(f"valid: {rows} rows, sealed {result.manifest.seal[:16]}; next: dlbench verify {folder}")


def _validated(folder: Path, rules: str, data_dir: str | None, offline: bool) -> Validation:
    """Validate a submission, with the options that both commands have."""
    from dlbench.data.task_options import Sources
    from dlbench.submission.validation import validate

    if rules not in ("official", "consistent"):
        raise DlbenchError(f"rules {rules!r}: give official or consistent")
    if offline:
        hub.enforce()
    return validate(folder, rules=rules, sources=Sources(data_dir=data_dir))  # type: ignore[arg-type]  # checked


def verify(
    folder: Annotated[Path, typer.Argument(callback=at_home, help="A submission that `dlbench validate` accepts.")],
    documents: Annotated[int, typer.Option(min=1, metavar="K", help="Documents of each row to decode again.")] = 16,
    nonce: Annotated[
        str, typer.Option(help="A word of your own that the draw of the documents depends on, besides the submission.")
    ] = "",
    model: Annotated[
        list[str] | None,
        typer.Option(help="Where a backbone of the submission is: folder or hub name; repeatable. [its recorded name]"),
    ] = None,
    rules: Annotated[str, typer.Option(help="official or consistent, as for `dlbench validate`.")] = "official",
    badge: Annotated[
        Path | None, typer.Option(callback=at_home, help="File to write the badge to. [DIR.badge]")
    ] = None,
    who: Annotated[str, typer.Option(help="Who verifies, for the badge.")] = "",
    maintainer: Annotated[
        bool, typer.Option("--maintainer", help="Whether that is a maintainer of the board: the badge says `rerun`.")
    ] = False,
    device: declared.Device = "auto",
    batch_size: declared.BatchSize = "auto",
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="Whether to time rows again, on a machine like the claim's.")
    ] = True,
    data_dir: declared.DataDir = None,
    offline: declared.Offline = False,
) -> None:
    """Decode some documents of a submission again, and hold text, routes, FLOPs and length against the claim.

    On a machine like the one that was timed, so are the times' ratios to full depth.

    This runs the submitted code: do it in a job or container without secrets. The documents are drawn from the hash of
    the submission. Exit code 2 if they differ.
    """
    from dlbench.submission.badge import write_badge

    checked = _validated(folder, rules, data_dir, offline)
    if not checked.passed or checked.submission is None:
        raise DlbenchError(f"{folder} is not valid: `dlbench validate {folder}` lists what is wrong")
    from dlbench.submission.verification import Verification, reproduced

    size = batch_size_of(batch_size)
    verification = Verification(
        checked.submission, documents, nonce, unique(model), device, size, timing, say, data_dir
    )
    rows = verification.run()
    earned = verification.badge(rows, who, maintainer=maintainer)
    path = badge or (whole := folder.resolve()).with_name(f"{whole.name}.badge")
    write_badge(path, earned)
    for row in rows:
        echo(
            f"{row.method} on {row.task} ({row.key[:8]}): {row.same} of {row.documents} the same, "
            f"{row.near_ties} differ at near ties, {len(row.differing)} differ"
        )
        for id_, how in row.differing[:3]:
            echo(f"    {id_}: {how}")
        for time in row.times:
            line = f"    batch {time.batch_size}: {time.measured:.2f} times full's speed, {time.claimed:.2f} claimed"
            echo(f"{line}; {time.finding}" if time.finding else line)
    echo(f"badge: {earned.trust} ({path})")
    if not reproduced(rows):
        raise DlbenchError(f"{folder}: what was decoded again is not what is claimed; the rows are not reproduced")
