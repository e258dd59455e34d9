"""Several trainings by one command: `skip-tuned` once for each method and budget, as the paper fine-tunes.

Each has a folder of its own in --out and stands for itself: it is resumed, shown and run like any other training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dlbench.errors import DlbenchError
from dlbench.registry import methods as registry
from dlbench.terminal.suggest import unknown
from dlbench.train.recipes import SkipTuned
from dlbench.train.spec import TRAIN_FILE, TrainSpec

if TYPE_CHECKING:
    from rich.table import Table

    from dlbench.train.card import Card


def each(
    spec: TrainSpec, methods: Sequence[str], budgets: Sequence[float], params: Mapping[str, Mapping[str, Any]]
) -> list[TrainSpec]:
    """Return one training for each method and budget; a single one has --out for itself.

    Args:
        spec: all other options.
        methods: names or plugin files; none for the recipe's default.
        budgets: shares of the layers; none for the set that the methods' parameters give.
        params: name of a method → its parameters.

    Raises:
        DlbenchError: parameters are of another method, or --out already holds a single training.
    """
    names = [registry.name_of(method) for method in methods] or [SkipTuned.method]
    for other in params:
        if other not in names:
            raise unknown("method", other, names, where="in a setting")
    own: list[dict[str, Any]] = [{"method": method} for method in methods] or [{}]
    for one, name in zip(own, names, strict=True):
        one |= {"params": dict(params[name])} if name in params else {}
    wanted = [{**one, **budget} for one in own for budget in ([{"budget": b} for b in budgets] or [{}])]
    if len(wanted) == 1:
        return [replace(spec, options={**spec.options, **wanted[0]})]
    if (spec.out / TRAIN_FILE).exists():
        raise DlbenchError(f"--out {spec.out} holds a single training, not several: give another folder, or delete it")
    return [replace(spec, options={**spec.options, **one}, out=spec.out / _name(spec, one)) for one in wanted]


def _name(spec: TrainSpec, options: Mapping[str, Any]) -> str:
    """Name of a training's folder, which also names the trained model: in full, since boards show it alone."""
    method = registry.name_of(str(options.get("method", SkipTuned.method)))
    budget = f"-{options['budget']:g}" if "budget" in options else ""
    return f"{spec.out.absolute().name}-{method}{budget}"


def table(cards: Sequence[Card]) -> Table:
    """Return the table that is printed after several trainings: quality of each set, and at full depth."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    made.add_column("trained for", no_wrap=True)
    for task, metric in cards[0].tasks.items():
        made.add_column(Text(f"{task}\n{metric}"), justify="right", no_wrap=True)
        made.add_column(Text("full depth"), justify="right", no_wrap=True, style="dim")
    for card in cards:
        cells = [card.cell(name, task) for task in card.tasks for name in (card.names[0], "full")]
        made.add_row(Text(card.names[0]), *cells)
    return made


def run_command(specs: Sequence[TrainSpec]) -> str:
    """Return the command that runs the trained models beside the one they come from."""
    methods = dict.fromkeys(str(spec.options.get("method", SkipTuned.method)) for spec in specs)
    budgets = dict.fromkeys(spec.options["budget"] for spec in specs if "budget" in spec.options)
    parts = ["dlbench run", f"--model {specs[0].model}", *(f"--model {spec.out}" for spec in specs)]
    parts += [*(f"--method {method}" for method in methods), *(f"--budget {budget:g}" for budget in budgets), "…"]
    return " ".join(parts)
