"""`dlbench run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.options.saved_run import read_config
from dlbench.commands.terminal import (
    BUDGET_HELP,
    budgets_of,
    interrupted,
    limited,
    number,
    say,
    tasks_of,
    tokens,
    unique,
)
from dlbench.errors import DlbenchError
from dlbench.registry import kv_policies
from dlbench.system import process_group, stopping
from dlbench.tasks import metrics


def run(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Embedded or prefetched model, folder, GGUF file or hub name; repeatable. [nano]"),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Task or suite (lm-eval's too), task YAML, or your own file:PATH.jsonl; repeatable. [nano]"),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Method, path of a plugin file, `core` or `all`; repeatable. [core]")
    ] = None,
    budget: Annotated[list[str] | None, typer.Option(metavar="SHARE|auto", help=BUDGET_HELP)] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME.PARAM=VALUE", help="Set a method's parameter; repeatable."),
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="N|first:N|all",
            help="Documents per task: N sampled ones, the same in every run, the first N, or all. "
            "[the suite's own number, else 32; official: all]",
        ),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(envvar="DLBENCH_DATA", help="Folder of local mirrors (`dlbench prefetch`), tried before the hub."),
    ] = None,
    include_path: Annotated[list[str] | None, typer.Option(help="Folder with your own task YAML; repeatable.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Prompt template of file: tasks, with {input}; \\n is a line break. [{input}]")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help=f"Metric of file: tasks: {', '.join(metrics.of_files())}. [{metrics.DEFAULT}]"),
    ] = None,
    fewshot: Annotated[
        int | None, typer.Option(help="Few-shot examples in the prompt. [the task's own number]")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most new tokens. [the task's own limit]")] = None,
    chat_template: Annotated[
        str,
        typer.Option(help="Put prompts into the model's chat template: auto (where the task asks for it), on, off."),
    ] = "auto",
    think_end_token: Annotated[
        str,
        typer.Option(
            metavar="auto|off|TEXT",
            help="Text that ends the thinking before an answer, which is not scored; auto: as the chat template says.",
        ),
    ] = "auto",
    out: Annotated[Path, typer.Option(help="Folder for records, samples and the site.")] = Path("dlbench-out"),
    batch_size: Annotated[
        str,
        typer.Option(metavar="N|auto", help="Documents decoded together; auto: as many as fit, at most 48 (GPU: 256)."),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, float16, int8 (weights only), or auto: the model's own. [float32; CUDA: auto]"
        ),
    ] = None,
    prompt: Annotated[
        str,
        typer.Option(
            help="full: prompts run every layer; routed: the method's layers. A text with {input} is a --template."
        ),
    ] = "full",
    kv: Annotated[
        str | None,
        typer.Option(help=f"Keys and values of skipped tokens: {', '.join(kv_policies.names())}. [the method's own]"),
    ] = None,
    kernels: Annotated[
        str,
        typer.Option(help="auto: fused layers where they are verified to equal the model's; stock: the model's own."),
    ] = "auto",
    processes: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Processes that share documents and fits; auto: one per core for small models on a CPU.",
        ),
    ] = "auto",
    fit: Annotated[bool, typer.Option("--fit/--no-fit", help="Fit methods again even where fits exist.")] = False,
    fit_seeds: Annotated[
        int | None, typer.Option(help="Number of fits of each method that learns; each is a row. [1; official: 3]")
    ] = None,
    fit_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N|all", help="Most tokens of the documents that a fit learns from. [each method's bound]"
        ),
    ] = None,
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Measure times at the end of the run.")] = True,
    official: Annotated[
        bool,
        typer.Option(
            "--official", help="Follow the official protocol, and write OUT/submission, see leaderboard/SUBMITTING.md."
        ),
    ] = False,
    author: Annotated[str, typer.Option(help="Who submits an official run.")] = "",
    offline: Annotated[
        bool, typer.Option("--offline", help="Use mirrors, files and caches only, never the hub.")
    ] = False,
    device_map: Annotated[
        str | None, typer.Option(help="Spread the layers over devices: auto, balanced, or a JSON file. [one device]")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a model.")
    ] = False,
    time_limit: Annotated[
        str | None,
        typer.Option(metavar="3h50m", help="Stop after this time, between two waves; the same command goes on. [none]"),
    ] = None,
    progress: Annotated[
        str,
        typer.Option(metavar="auto|lines|json|quiet", help="auto: bars on a terminal, else lines; json: for machines."),
    ] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors and results only: --progress quiet.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print every step as a line: --progress lines.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            is_eager=True,
            callback=read_config,
            help="Options in a YAML or TOML file, or run.json of a run; the command line goes before.",
        ),
    ] = None,
) -> None:
    """Run methods on tasks, and write records and a leaderboard.

    The same command started again continues where it stopped.
    """
    from dlbench.data import resolve
    from dlbench.data.task_options import Sources
    from dlbench.registry import methods as registry
    from dlbench.run.config import RunSpec, check_environment, parse_settings

    try:
        process_group.settle(say)
        for left_out in registry.unusable(unique(method) or ("core",)).values():
            say(f"left out: {left_out}")
        prompt, template = _template_of(prompt, template)
        names = unique(task) or ("nano",)
        sources = Sources(data_dir, unique(include_path), fewshot, max_new_tokens, template, metric)
        sources.check(names)
        count, first = limited(limit or ("all" if official else str(resolve.documents_per_task(names))))
        asked = RunSpec(
            models=unique(model) or ("nano",),
            tasks=tasks_of(names, sources),
            methods=_methods(unique(method) or ("core",), official),
            budgets=budgets_of(budget),
            settings=parse_settings(set_ or ()),
            limit=count,
            limit_first=first,
            out=out,
            batch_size=number("batch size", batch_size, "auto"),
            seed=seed,
            device=device,
            dtype=dtype,
            prompt=prompt,  # type: ignore[arg-type]  # checked in the next line
            kv=kv,
            kernels=kernels,  # type: ignore[arg-type]  # checked likewise
            processes=number("processes", processes, "auto"),
            fit=fit,
            fit_seeds=fit_seeds if fit_seeds is not None else 3 if official else 1,
            fit_tokens=tokens(fit_tokens),
            timing=timing,
            sources=sources,
            chat_template=chat_template,  # type: ignore[arg-type]  # checked likewise
            think_end_token=think_end_token,
            official=official,
            author=author,
            offline=offline,
            device_map=device_map,
            trust_remote_code=trust_remote_code,
            time_limit=None if time_limit is None else stopping.seconds(time_limit),
            progress="quiet" if quiet else "lines" if verbose else progress,  # type: ignore[arg-type]  # checked likewise
        )
        asked.check()
        if process_group.rank() == 0:
            for name, path in asked.task_code():
                say(f"task {name!r} runs code of its own: {path} names functions, or a class")
        check_environment(asked)
        from dlbench.run.runner import execute

        execute(asked)
    except KeyboardInterrupt as stop:
        raise interrupted(stop, "the same command continues where it stopped") from None


def _methods(given: tuple[str, ...], official: bool) -> tuple[str, ...]:
    """Methods by name or path; an official run has the controls too, and no oracles."""
    from dlbench.registry import methods as registry

    if not official:
        return registry.expand(given)
    from dlbench.submission.protocol import CONTROLS

    return tuple(m for m in registry.expand((*given, *CONTROLS)) if registry.describe(m).deployable)


def _template_of(prompt: str, template: str | None) -> tuple[str, str | None]:
    """Take a --prompt with {input} as the --template; return the prompt policy and the template."""
    if "{input}" not in prompt:
        return prompt, template
    if template is not None:
        raise DlbenchError("--prompt and --template both give a template: give one of them")
    return "full", prompt
