"""`dlbench fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.options import declared
from dlbench.commands.options.terminal import budgets_of, interrupted, number, tokens, unique
from dlbench.system import process_group, stopping
from dlbench.terminal.said import say


def fit(
    method: Annotated[
        list[str],
        typer.Argument(autocompletion=declared.method_names, help="Methods, or paths of plugin files."),
    ],
    model: declared.Models = None,
    task: declared.Tasks = None,
    budget: declared.Budgets = None,
    set_: declared.Settings = None,
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
    seed: Annotated[int, typer.Option(rich_help_panel=declared.METHODS, help="Seed of the first fit.")] = 0,
    fit_seeds: Annotated[
        int,
        typer.Option(rich_help_panel=declared.METHODS, help="Number of fits of each method that learns."),
    ] = 1,
    fit_tokens: declared.FitTokens = None,
    device: declared.Device = "auto",
    dtype: declared.Dtype = None,
    prompt: declared.Prompt = "full",
    kv: declared.KV = None,
    kernels: declared.Kernels = "auto",
    processes: declared.Processes = "auto",
    refit: declared.Refit = False,
    offline: declared.Offline = False,
    device_map: declared.DeviceMap = None,
    trust_remote_code: declared.TrustRemoteCode = False,
    time_limit: declared.TimeLimit = None,
    progress: declared.HowProgress = "auto",
    quiet: declared.Quiet = False,
    verbose: declared.Verbose = False,
) -> None:
    """Learn and tune methods on the fit split, without running them on the test documents.

    Every option means what it means in `dlbench run`. The fits that a run would make are made and kept under OUT/fits;
    methods with nothing to learn or tune are refused.
    """
    from dlbench.api.asked import tasks_of
    from dlbench.data.task_options import Sources
    from dlbench.registry import methods as registry
    from dlbench.running.config import RunSpec, check_environment, parse_settings

    try:
        process_group.settle(say)
        names = unique(task) or ("nano",)
        sources = Sources(data_dir, unique(include_path), fewshot, max_new_tokens, template, metric, system_instruction)
        sources.check(names)
        asked = RunSpec(
            models=unique(model) or ("nano",),
            tasks=tasks_of(names, sources),
            methods=registry.expand(unique(method)),
            budgets=budgets_of(budget),
            settings=parse_settings(set_ or ()),
            limit=1,
            out=out,
            seed=seed,
            fit_seeds=fit_seeds,
            fit_tokens=tokens(fit_tokens),
            device=device,
            dtype=dtype,
            prompt=prompt,  # type: ignore[arg-type]  # checked in the next line
            kv=kv,
            kernels=kernels,  # type: ignore[arg-type]  # checked likewise
            processes=number("processes", processes, "auto"),
            fit=refit,
            timing=False,
            sources=sources,
            chat_template=chat_template,  # type: ignore[arg-type]  # checked likewise
            think_end_token=think_end_token,
            offline=offline,
            device_map=device_map,
            trust_remote_code=trust_remote_code,
            time_limit=None if time_limit is None else stopping.seconds(time_limit),
            progress="quiet" if quiet else "lines" if verbose else progress,  # type: ignore[arg-type]  # checked likewise
        )
        asked.check()
        check_environment(asked)
        from dlbench.running.runner import fit_only

        fit_only(asked)
    except KeyboardInterrupt as stop:
        raise interrupted(stop, "fits that were finished are kept") from None
