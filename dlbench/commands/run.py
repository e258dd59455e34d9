"""`dlbench run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.options import declared
from dlbench.commands.options.saved_run import read_config
from dlbench.commands.options.terminal import (
    batch_size_of,
    budgets_of,
    interrupted,
    number,
    print_json,
    tokens,
    unique,
)
from dlbench.errors import DlbenchError
from dlbench.system import process_group
from dlbench.terminal.said import say


def run(
    model: declared.Models = None,
    task: declared.Tasks = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=declared.METHODS,
            autocompletion=declared.method_names,
            help="Method, path of a plugin file, `core` or `all`; several by comma, or repeat. [core]",
        ),
    ] = None,
    budget: declared.Budgets = None,
    set_: declared.Settings = None,
    limit: Annotated[
        str | None,
        typer.Option(
            "--limit",
            "-L",
            metavar="N|first:N|all",
            rich_help_panel=declared.TASKS,
            help="Documents per task: N sampled ones, the same in every run, the first N, or all. "
            "[the suite's own number, else 32; official: all]",
        ),
    ] = None,
    data_dir: declared.DataDir = None,
    include_path: declared.IncludePath = None,
    template: declared.Template = None,
    metric: declared.Metric = None,
    fewshot: declared.Fewshot = None,
    max_new_tokens: declared.MaxNewTokens = None,
    chat_template: declared.ChatTemplate = "auto",
    system_instruction: declared.SystemInstruction = None,
    think_end_token: declared.ThinkEndToken = "auto",
    out: declared.RunFolder = Path("dlbench-out"),
    batch_size: declared.BatchSize = "auto",
    seed: Annotated[
        int, typer.Option(rich_help_panel=declared.METHODS, help="Seed of fits and of everything random.")
    ] = 0,
    device: declared.Device = "auto",
    dtype: declared.Dtype = None,
    prompt: declared.Prompt = "full",
    kv: declared.KV = None,
    kernels: declared.Kernels = "auto",
    processes: declared.Processes = "auto",
    refit: declared.Refit = False,
    fit_seeds: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=declared.METHODS,
            help="Number of fits of each method that learns; each is a row. [1; official: 3]",
        ),
    ] = None,
    fit_tokens: declared.FitTokens = None,
    timing: Annotated[
        bool,
        typer.Option(
            "--timing/--no-timing", rich_help_panel=declared.COMPUTE, help="Measure times at the end of the run."
        ),
    ] = True,
    official: Annotated[
        bool,
        typer.Option(
            "--official",
            rich_help_panel=declared.OUTPUT,
            help="Follow the official protocol, and write OUT/submission, see leaderboard/SUBMITTING.md.",
        ),
    ] = False,
    author: Annotated[str, typer.Option(rich_help_panel=declared.OUTPUT, help="Who submits an official run.")] = "",
    offline: declared.Offline = False,
    device_map: declared.DeviceMap = None,
    trust_remote_code: declared.TrustRemoteCode = False,
    time_limit: declared.TimeLimit = None,
    track: declared.Track = None,
    progress: declared.HowProgress = "auto",
    quiet: declared.Quiet = False,
    verbose: declared.Verbose = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            rich_help_panel=declared.OUTPUT,
            help="Print what the run would do, reuse and need, by a short probe; write nothing.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=declared.OUTPUT, help="With --dry-run: print JSON.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            is_eager=True,
            callback=read_config,
            rich_help_panel=declared.OUTPUT,
            help="Options in a YAML or TOML file, or run.json of a run; the command line overrides it.",
        ),
    ] = None,
) -> None:
    """Run methods on tasks, and write records and a leaderboard.

    The same command started again continues where it stopped.
    """
    from dlbench.api.asked import spec_of
    from dlbench.data.task_options import Sources
    from dlbench.running.config import check_environment, parse_settings

    try:
        process_group.settle(say)
        asked = spec_of(
            unique(method) or ("core",),
            unique(task) or ("nano",),
            Sources(data_dir, unique(include_path), fewshot, max_new_tokens, template, metric, system_instruction),
            limit=limit,
            official=official,
            fit_seeds=fit_seeds,
            time_limit=time_limit,
            models=unique(model) or ("nano",),
            budgets=budgets_of(budget),
            settings=parse_settings(set_ or ()),
            out=out,
            batch_size=batch_size_of(batch_size),
            seed=seed,
            device=device,
            dtype=dtype,
            prompt=prompt,
            kv=kv,
            kernels=kernels,
            processes=number("processes", processes, "auto"),
            fit=refit,
            fit_tokens=tokens(fit_tokens),
            timing=timing,
            chat_template=chat_template,
            think_end_token=think_end_token,
            author=author,
            offline=offline,
            device_map=device_map,
            trust_remote_code=trust_remote_code,
            track=unique(track),
            progress="quiet" if quiet else "lines" if verbose else progress,
        )
        if as_json and not dry_run:
            raise DlbenchError("--json is for --dry-run: the results of a run are in its folder, and `dlbench board`'s")
        check_environment(asked)
        if dry_run:
            from dlbench.dry_run.plan import make_plan
            from dlbench.dry_run.report import lines

            plan = make_plan(asked)
            if as_json:
                print_json(plan.to_json())
            else:
                typer.echo("\n".join(lines(plan)))
            return
        from dlbench.running.runner import execute

        execute(asked)
    except KeyboardInterrupt as stop:
        raise interrupted(stop, "the same command continues where it stopped") from None
