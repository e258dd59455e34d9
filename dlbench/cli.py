"""The command line: parses options, calls a command and reports errors; `dlbench.commands` has a file per command.

Nothing heavy is imported before it is needed: `--help` and `list` take a fraction of a second. Exit codes: 0 done,
1 a fault of dlbench, 2 a fault in what was asked, 3 some methods failed and have no row, or a process was lost, 130
interrupted, 143 told to stop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from dlbench import __version__
from dlbench.commands.bench import bench
from dlbench.commands.board import board
from dlbench.commands.check import check
from dlbench.commands.compare import compare
from dlbench.commands.export import export
from dlbench.commands.fit import fit
from dlbench.commands.listing import listing
from dlbench.commands.lm_eval import PASSED_ON, lm_eval
from dlbench.commands.new import new
from dlbench.commands.options.command import PLAIN, Command, Group, hyphened
from dlbench.commands.options.terminal import echo
from dlbench.commands.prefetch import prefetch
from dlbench.commands.run import run
from dlbench.commands.runs import runs
from dlbench.commands.train import train
from dlbench.commands.validate import validate, verify
from dlbench.errors import DlbenchError, of_the_system
from dlbench.registry.plugin_code import guilty
from dlbench.system import stopping
from dlbench.system.process_group import lost_peer
from dlbench.terminal.encoding import print_anything
from dlbench.terminal.said import say

app = typer.Typer(
    help="Benchmark dynamic-depth inference in decoder-only language models.",
    cls=Group,
    context_settings={"token_normalize_func": hyphened},
    **{**PLAIN, "add_completion": True},
)
_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Run": (run, fit, runs),
    "Look at results": (board, compare, export),
    "Write a method": (check,),
    "Models and data": (prefetch, train),
    "Submit": (validate, verify),
    "Other": (bench,),
}
for _group, _several in _COMMANDS.items():
    for _command in _several:
        app.command(cls=Command, rich_help_panel=_group)(_command)
app.command("lm-eval", context_settings=PASSED_ON, rich_help_panel="Run")(lm_eval)
app.add_typer(listing, name="list", rich_help_panel="Models and data")
app.add_typer(new, name="new", rich_help_panel="Write a method")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    # `main` reads --debug itself, so that it may be anywhere on the line.
    if version:
        echo(f"dlbench {__version__}")
    elif context.invoked_subcommand is None:
        echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors become one line on stderr."""
    print_anything()
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    command = typer.main.get_command(app)
    try:
        with stopping.by_signals() as received:
            code = command.main([g for g in given if g != "--debug"], prog_name="dlbench", standalone_mode=False)
        if received and code == 130:  # so typer answers any KeyboardInterrupt that a command lets pass
            say(received[0])
            return stopping.EXIT_CODE
        return code if isinstance(code, int) else 0
    except DlbenchError as error:
        if debug:
            _traceback()
        say(str(error))
        return error.exit_code
    except (Exception, SystemExit) as error:
        # Some releases of typer have their own copy of click's exceptions, so these are recognised by their attributes.
        if callable(message := getattr(error, "format_message", None)):
            context = getattr(error, "ctx", None)
            say(f"{message()} (see `{context.command_path if context else 'dlbench'} --help`)")
            return int(getattr(error, "exit_code", 2))
        if debug:
            _traceback()
        if (failure := guilty(error) or of_the_system(error) or lost_peer(error)) is not None:
            say(str(failure))
            return failure.exit_code
        if isinstance(error, SystemExit):
            raise
        say(f"unexpected {type(error).__name__}: {error} (a fault of dlbench; --debug shows the traceback)")
        return 1


def _traceback() -> None:
    import traceback

    traceback.print_exc()
