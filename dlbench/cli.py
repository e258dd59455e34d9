"""The command line: reads options, says what is wrong with them, and hands over.

Nothing heavy is imported before it is needed: `--help` and `list` answer in a fraction of a second. Exit codes: 0 done,
1 a fault of dlbench, 2 a fault in what was asked, 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dlbench import __version__
from dlbench.errors import DlbenchError

# Without rich: its import takes longer than all the rest of the help.
_PLAIN: dict[str, Any] = {"rich_markup_mode": None, "add_completion": False}
app = typer.Typer(help="Benchmark dynamic-depth inference in decoder-only language models.", **_PLAIN)
listing = typer.Typer(help="List methods, tasks or models.", **_PLAIN)
app.add_typer(listing, name="list")

_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    # `main` reads --debug itself, so that it may stand anywhere on the line.
    if version:
        typer.echo(f"dlbench {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def run(
    model: Annotated[list[str] | None, typer.Option(help="Embedded name, folder or hub name; repeat. [nano]")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task, suite or task YAML; repeat. [nano]")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Method, or path of a plugin file; repeat. [all]")] = None,
    budget: Annotated[
        list[float] | None, typer.Option(help="Target share of the layers, in (0, 1]; repeat. [0.25 0.5 0.75]")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME.PARAM=VALUE", help="Set a method's parameter; repeat.")
    ] = None,
    limit: Annotated[str, typer.Option(metavar="N|all", help="Documents per task.")] = "32",
    out: Annotated[Path, typer.Option(help="Folder for records, samples and the site.")] = Path("dlbench-out"),
    batch_size: Annotated[
        str, typer.Option(metavar="N|auto", help="Documents decoded together; auto: as many as fit, 48 or (GPU) 256.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or int8 (weights only).")] = "float32",
    prompt: Annotated[str, typer.Option(help="full: prompts run every layer; routed: the method's layers.")] = "full",
    kv: Annotated[
        str | None,
        typer.Option(help="Keys and values of skipped tokens: project, evict or recompute. [the method's own]"),
    ] = None,
    kernels: Annotated[
        str, typer.Option(help="auto: fused layers where proved equal; stock: the model's own.")
    ] = "auto",
    processes: Annotated[int, typer.Option(help="Processes that share the documents.")] = 1,
    fit: Annotated[bool, typer.Option("--fit/--no-fit", help="Fit methods again, though fitted ones exist.")] = False,
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Measure times after the quality run.")] = True,
) -> None:
    """Run methods on tasks, and write records and a leaderboard.

    The same command started again continues where it stopped.
    """
    from dlbench import harness, registry, spec

    try:
        asked = spec.RunSpec(
            models=_unique(model) or ("nano",),
            tasks=tuple(harness.expand_tasks(_unique(task) or ("nano",))),
            methods=_unique(method) or registry.names(),
            budgets=tuple(dict.fromkeys(budget or (0.25, 0.5, 0.75))),
            settings=spec.parse_settings(set_ or ()),
            limit=_number("limit", limit, "all"),
            out=out,
            batch_size=_number("batch size", batch_size, "auto"),
            seed=seed,
            device=device,
            dtype=dtype,
            prompt=prompt,  # type: ignore[arg-type]  # checked in the next line
            kv=kv,
            kernels=kernels,  # type: ignore[arg-type]  # checked likewise
            processes=processes,
            fit=fit,
            timing=timing,
        )
        asked.check()
        spec.check_environment(asked)
        from dlbench.runner import execute

        execute(asked)
    except KeyboardInterrupt:
        _say("interrupted; the same command continues where it stopped")
        raise typer.Exit(130) from None


@app.command()
def board(
    run_dir: Annotated[list[Path], typer.Argument(help="Folders that `dlbench run` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the site.")] = Path("site"),
) -> None:
    """Build the leaderboard of one or more runs: static pages that open from the file system."""
    for folder in run_dir:
        if not (folder / "records.jsonl").is_file():
            raise DlbenchError(f"{folder} holds no records.jsonl: give a folder that `dlbench run` wrote")
    from dlbench.leaderboard.site import build

    typer.echo(build(run_dir, out))


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Smaller models, fewer repeats: minutes.")] = False,
    to: Annotated[Path | None, typer.Option("--json", metavar="PATH", help="Write every measurement there.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads. [torch's own choice]")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. [float32; GPU: bfloat16]")] = None,
    only: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Of decode, wide, requests, sweep, memory, start. [all]")
    ] = None,
) -> None:
    """Measure dlbench's own speed beside transformers' generate and lm-eval, on this machine.

    Leave the machine to it: whatever else runs shows in the times.
    """
    from dlbench.bench.options import Options

    asked = Options(quick=quick, out=to, threads=threads, device=device, dtype=dtype, only=only)
    try:
        asked.check()
        from dlbench.bench.run import execute

        execute(asked)
    except KeyboardInterrupt:
        _say("interrupted; nothing is kept of an unfinished benchmark")
        raise typer.Exit(130) from None


@listing.callback(invoke_without_command=True)
def _list(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@listing.command("methods")
def list_methods(as_json: _AsJson = False) -> None:
    """List the methods: built-in ones and those of installed plugins."""
    from dlbench import registry

    found = [registry.describe(name) for name in registry.names()]
    if as_json:
        _print_json([dataclasses.asdict(info) for info in found])
        return
    _print_table([(info.name, info.summary) for info in found])


@listing.command("tasks")
def list_tasks(as_json: _AsJson = False) -> None:
    """List the tasks that come with dlbench; those of lm-eval can be run as well."""
    from dlbench import harness

    found = harness.list_tasks()
    if as_json:
        _print_json([{**dataclasses.asdict(info), "path": str(info.path)} for info in found])
        return
    _print_table([(info.name, info.metric, info.about) for info in found])


@listing.command("models")
def list_models(as_json: _AsJson = False) -> None:
    """List the models that come with dlbench, the families of those that it can load, and the dtypes."""
    from dlbench import spec

    found = spec.list_models()
    if as_json:
        _print_json([dataclasses.asdict(info) for info in found])
        return
    _print_table([(info.name, info.about) for info in found if info.kind == "embedded"])
    families = ", ".join(info.name for info in found if info.kind == "family")
    typer.echo("\nOr a folder, or a hub name (ORG/NAME, ORG/NAME@REVISION), of one of these:")
    typer.echo(textwrap.fill(families, 80, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))
    typer.echo(f"\nEach in --dtype {', '.join(found[0].dtypes)} (with dlbench[int8]).")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors become one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    command = typer.main.get_command(app)
    try:
        code = command.main([g for g in given if g != "--debug"], prog_name="dlbench", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except DlbenchError as error:
        if debug:
            _traceback()
        _say(str(error))
        return error.exit_code
    except Exception as error:
        # typer keeps its own copy of click's exceptions in some releases, so they are told by what they offer.
        if callable(message := getattr(error, "format_message", None)):
            _say(f"{message()} (see `dlbench --help`)")
            return int(getattr(error, "exit_code", 2))
        if debug:
            _traceback()
        _say(f"unexpected {type(error).__name__}: {error} (a fault of dlbench; --debug shows the traceback)")
        return 1


def _unique(values: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values or ()))


def _number(what: str, text: str, word: str) -> int | None:
    """A number of documents, or None for the word that stands in its place."""
    if text == word:
        return None
    try:
        return int(text)
    except ValueError:
        raise DlbenchError(f"{what} {text!r}: give a number of documents, or `{word}`") from None


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _say(message: str) -> None:
    print("dlbench:", " ".join(message.split()), file=sys.stderr)


def _traceback() -> None:
    import traceback

    traceback.print_exc()
