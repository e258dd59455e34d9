"""Commands with options in groups, that understand lm-eval's spelling; typer's own groups need rich, which is slow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

from typer.core import TyperCommand, TyperGroup

from dlbench.commands.options.lm_eval_spelling import understood
from dlbench.errors import DlbenchError
from dlbench.terminal.encoding import printable

PLAIN: dict[str, Any] = {"rich_markup_mode": None, "add_completion": False}
"""Typer without rich, whose import takes longer than everything else that `--help` needs."""
GENERAL = "Options"
"""The group of options that name none."""


def hyphened(name: str) -> str:
    """An option's name with hyphens: underscores mean the same."""
    return name.replace("_", "-")


@final
class Command(TyperCommand):
    """A command whose help shows its options by group, and whose arguments may be spelled as lm-eval's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            flags = {
                opt: bool(getattr(p, "is_flag", False)) for p in self.params for opt in (*p.opts, *p.secondary_opts)
            }
            args = understood(args, flags, positional=any(p.param_type_name == "argument" for p in self.params))
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        return printable(super().get_help(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        shown = [(p, record) for p in self.get_params(ctx) if (record := p.get_help_record(ctx)) is not None]
        _sections(formatter, ((_group(p), record) for p, record in shown))


@final
class Group(TyperGroup):
    """The command line itself, whose help shows its commands by group."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {opt for p in self.get_params(ctx) for opt in (*p.opts, *p.secondary_opts)}
        unknown = bool(args) and args[0].startswith("--") and hyphened(args[0].partition("=")[0]) not in own
        if unknown and not ctx.resilient_parsing:  # while the shell completes, it is half a word
            raise DlbenchError(f"{args[0]}: name a command first, such as `dlbench run {' '.join(args)}`")
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        return printable(super().get_help(ctx))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = {name: command for name in self.list_commands(ctx) if (command := self.get_command(ctx, name))}
        room = formatter.width - 6 - max(map(len, commands))
        _sections(
            formatter,
            (
                (getattr(command, "rich_help_panel", None) or "Commands", (name, command.get_short_help_str(room)))
                for name, command in commands.items()
                if not command.hidden
            ),
        )


def _group(param: Any) -> str:
    if param.param_type_name == "argument":
        return "Arguments"
    return getattr(param, "rich_help_panel", None) or GENERAL


def _sections(formatter: Any, records: Iterable[tuple[str, tuple[str, str]]]) -> None:
    """Write records under the names of their groups, in the order in which the groups come first."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, record in records:
        groups.setdefault(name, []).append(record)
    last = groups.pop(GENERAL, None)
    for name, listed in (*groups.items(), *([(GENERAL, last)] if last else ())):
        with formatter.section(name):
            formatter.write_dl(listed)
