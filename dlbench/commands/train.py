"""`dlbench train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from dlbench.commands.options import declared
from dlbench.commands.options.terminal import budgets_of, interrupted, unique
from dlbench.errors import DlbenchError
from dlbench.system import process_group
from dlbench.terminal.said import say


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="sorted, layerskip or skip-tuned.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "--output-path",
            "-o",
            help="Folder for the trained model.",
            show_default=False,
            rich_help_panel=declared.OUTPUT,
        ),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", rich_help_panel=declared.MODEL, help="Embedded model, folder or hub name.")
    ] = "nano",
    task: declared.Tasks = None,
    data_dir: declared.DataDir = None,
    include_path: declared.IncludePath = None,
    fewshot: declared.Fewshot = None,
    documents: Annotated[
        int | None,
        typer.Option(
            rich_help_panel="Training", help="Documents in total. [10000 per task that generates them, else all]"
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(rich_help_panel="Training", help="Passes over the documents. [1 if all are generated, else 2]"),
    ] = None,
    exits: Annotated[
        str | None,
        typer.Option(
            metavar="N,…",
            rich_help_panel="Recipe",
            help="sorted: exits, as numbers of layers. [about seven from 1/4 of the depth]",
        ),
    ] = None,
    layer_dropout: Annotated[
        float | None, typer.Option(rich_help_panel="Recipe", help="layerskip: dropout of the last layer. [0.1]")
    ] = None,
    exit_scale: Annotated[
        float | None, typer.Option(rich_help_panel="Recipe", help="layerskip: weight of early exits. [1.0]")
    ] = None,
    curriculum: Annotated[
        str | None, typer.Option(rich_help_panel="Recipe", help="layerskip: rotational or all. [rotational]")
    ] = None,
    exit_stride: Annotated[
        int | None, typer.Option(rich_help_panel="Recipe", help="layerskip: layers between exits. [1/4 of the depth]")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(rich_help_panel="Recipe", help="skip-tuned: a static method; repeatable. [static_skip]"),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            "-B",
            rich_help_panel="Recipe",
            help="skip-tuned: shares of the layers, by comma: one training for each method and budget.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME.PARAM=VALUE",
            rich_help_panel="Recipe",
            help="skip-tuned: set a method's parameter; repeatable.",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            rich_help_panel="Recipe",
            help="skip-tuned: full: prompts run every layer; routed: the method's layers. [full]",
        ),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(
            metavar="RANK",
            rich_help_panel="Training",
            help="Train adapters of this rank on the decoder layers, and merge them (LoRA).",
        ),
    ] = None,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing",
            rich_help_panel="Training",
            help="Take less memory, and about a third more time.",
        ),
    ] = False,
    lr: Annotated[
        float | None,
        typer.Option(
            rich_help_panel="Training",
            help="Peak learning rate of AdamW. [2e-5, --lora 5e-4; below 50 M parameters 2e-3, 5e-3]",
        ),
    ] = None,
    warmup: Annotated[
        float,
        typer.Option(rich_help_panel="Training", help="Share of the steps in which the rate rises; then a cosine."),
    ] = 0.03,
    weight_decay: Annotated[float, typer.Option(rich_help_panel="Training", help="Weight decay of matrices.")] = 0.0,
    batch_tokens: Annotated[
        int, typer.Option(rich_help_panel="Training", help="Tokens per step, over all processes.")
    ] = 4096,
    micro_tokens: Annotated[
        int, typer.Option(rich_help_panel="Training", help="Tokens per forward: as many as fit the memory.")
    ] = 2048,
    score: Annotated[
        int,
        typer.Option(rich_help_panel="Training", help="Documents per task to measure quality on, before and after."),
    ] = 48,
    seed: Annotated[int, typer.Option(rich_help_panel="Training", help="Seed of everything random.")] = 0,
    device: Annotated[
        str, typer.Option(rich_help_panel=declared.COMPUTE, help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            rich_help_panel=declared.COMPUTE, help="Of matrix products: auto, float32 or bfloat16; weights are float32."
        ),
    ] = "auto",
    processes: Annotated[
        int, typer.Option(rich_help_panel=declared.COMPUTE, help="Processes that share the documents.")
    ] = 1,
    save_minutes: Annotated[
        float, typer.Option(rich_help_panel=declared.COMPUTE, help="Minutes between checkpoints.")
    ] = 5.0,
) -> None:
    """Train a backbone so that it can skip layers; the result is a model folder with a card.

    The same command started again continues where it stopped.
    """
    from dlbench.api.asked import tasks_of
    from dlbench.data.task_options import Sources
    from dlbench.train import sets
    from dlbench.train.spec import TrainSpec

    given: dict[str, Any] = {
        "exits": None if exits is None else _exits(exits),
        "p_max": layer_dropout,
        "scale": exit_scale,
        "curriculum": curriculum,
        "stride": exit_stride,
        "prompt": prompt,
    }
    sources = Sources(data_dir, unique(include_path), fewshot)
    try:
        process_group.settle(say)
        asked = TrainSpec(
            recipe=recipe,
            tasks=tasks_of(unique(task) or ("nano",), sources),
            out=out,
            model=model,
            options={name: value for name, value in given.items() if value is not None},
            documents=documents,
            epochs=epochs,
            sources=sources,
            lora=lora,
            gradient_checkpointing=gradient_checkpointing,
            lr=lr,
            warmup=warmup,
            weight_decay=weight_decay,
            batch_tokens=batch_tokens,
            micro_tokens=micro_tokens,
            seed=seed,
            device=device,
            dtype=dtype,
            processes=processes,
            save_minutes=save_minutes,
            score=score,
        )
        several = sets.each(asked, unique(method), _shares(budget), _params(set_))
        for one in several:
            one.check()
        from dlbench.train.run import execute

        execute(*several)
    except KeyboardInterrupt as stop:
        raise interrupted(stop, "the same command continues from the last checkpoint") from None


def _shares(given: list[str] | None) -> tuple[float, ...]:
    """Parse the values of --budget.

    Raises:
        DlbenchError: one is no share of the layers.
    """
    budgets = budgets_of(given)
    if budgets == "auto":
        raise DlbenchError("--budget auto: a training needs its budget; give shares of the layers such as 0.5")
    return budgets or ()


def _exits(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(n) for n in text.split(",")}))
    except ValueError:
        raise DlbenchError(f"--exits {text!r}: give numbers of layers, such as 4,8,12,16") from None


def _params(texts: list[str] | None) -> Mapping[str, Mapping[str, Any]]:
    from dlbench.running.config import parse_settings

    return parse_settings(texts) if texts else {}
