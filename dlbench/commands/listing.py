"""`dlbench list`."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Annotated

import typer

from dlbench.commands.options import declared
from dlbench.commands.options.command import PLAIN, Command
from dlbench.commands.options.terminal import echo, print_json, print_table
from dlbench.terminal.said import say

listing = typer.Typer(help="List methods, tasks or models.", **PLAIN)


@listing.callback(invoke_without_command=True)
def _list(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        echo(context.get_help())


@listing.command("methods", cls=Command)
def list_methods(as_json: declared.AsJson = False) -> None:
    """List the methods: built-in ones and those of installed plugins."""
    from dlbench.registry import method_sources
    from dlbench.registry import methods as registry

    methods = [registry.describe(name) for name in registry.names()]
    if as_json:
        print_json([dataclasses.asdict(info) for info in methods])
        return
    print_table([(info.name, info.summary) for info in methods])
    for error in method_sources.clashes().values():
        say(str(error))


@listing.command("tasks", cls=Command)
def list_tasks(
    as_json: declared.AsJson = False,
    everything: Annotated[bool, typer.Option("--all", help="Thirteen thousand tasks of lm-eval too.")] = False,
) -> None:
    """List the tasks of dlbench's suites; --all lists those of lm-eval too, which run by their names as well."""
    from dlbench.data import resolve, suites

    tasks = resolve.list_tasks(everything)
    if as_json:
        print_json(
            [{**dataclasses.asdict(info), "path": str(info.path or ""), "origin": info.origin} for info in tasks]
        )
        return
    width = max(len(info.name) for info in tasks if info.suite)
    for suite in suites.suites():
        echo(f"{suite}: {suites.about(suite)}")
        for info in (i for i in tasks if i.suite == suite):
            echo(f"  {info.name:{width}}  {info.metric.partition('@')[0]:11}  {info.about}")
    if others := [info for info in tasks if not info.suite]:
        echo(f"lm-eval: {len(others):,} more, and what they ask of a model")
        echo("\n".join(f"  {info.name:50}  {info.about}".rstrip() for info in others))


@listing.command("models", cls=Command)
def list_models(as_json: declared.AsJson = False) -> None:
    """List the models that come with dlbench, the families of those that it can load, and the dtypes."""
    from dlbench.models import catalog

    models = catalog.list_models()
    if as_json:
        print_json([dataclasses.asdict(info) for info in models])
        return
    print_table([(info.name, info.about) for info in models if info.kind != "family"])
    families = ", ".join(info.name for info in models if info.kind == "family")
    echo("\nOr a folder, a .gguf file, or a hub name (ORG/NAME, ORG/NAME@REVISION) of these:")
    echo(textwrap.fill(families, 80, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))
    echo("and of any other decoder of transformers whose structure is recognised and")
    echo("passes its proof when it is loaded.")
    echo(f"\nEach in --dtype {', '.join(models[0].dtypes)}.")
    echo("int8 needs dlbench[int8].")
