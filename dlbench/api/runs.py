"""`dlbench.run`: what the command `dlbench run` does, from Python."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from dlbench.api.asked import spec_of
from dlbench.api.given_methods import GivenMethod, resolve
from dlbench.api.given_models import stored
from dlbench.api.rereading import reread
from dlbench.api.results import Results
from dlbench.data.task_options import Sources
from dlbench.errors import RowsLeftOutError
from dlbench.records.run_folder import METHODS
from dlbench.running.config import check_environment
from dlbench.system import process_group, stopping
from dlbench.terminal.said import say

if TYPE_CHECKING:
    from dlbench.api.given_models import GivenModel, Tokenizer

One = TypeVar("One")


def run(
    model: GivenModel | Sequence[GivenModel] = "nano",
    tasks: str | Sequence[str] = "nano",
    methods: GivenMethod | Sequence[GivenMethod] = "core",
    budgets: float | Sequence[float] | Literal["auto"] | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    limit: int | str | None = None,
    out: str | Path = "dlbench-out",
    data_dir: str | Path | None = None,
    include_path: str | Path | Sequence[str | Path] = (),
    fewshot: int | None = None,
    max_new_tokens: int | None = None,
    template: str | None = None,
    metric: str | None = None,
    chat_template: Literal["auto", "on", "off"] = "auto",
    system_instruction: str | None = None,
    think_end_token: str = "auto",
    prompt: Literal["full", "routed"] = "full",
    kv: str | None = None,
    kernels: Literal["auto", "stock"] = "auto",
    batch_size: int | None = None,
    processes: int | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: str | None = None,
    device_map: str | None = None,
    trust_remote_code: bool = False,
    refit: bool = False,
    fit_seeds: int | None = None,
    fit_tokens: int | Literal["all"] | None = None,
    timing: bool = True,
    official: bool = False,
    author: str = "",
    offline: bool = False,
    time_limit: str | None = None,
    track: str | Sequence[str] = (),
    progress: Literal["auto", "lines", "json", "quiet"] = "auto",
) -> Results:
    """Run methods on tasks, and write records and a board, as the command `dlbench run` does.

    A run into the same folder continues where it stopped, and what was decoded before is not decoded again.

    Args:
        model: names or folders as `--model` takes them, or loaded transformers models. A loaded one is written to a
            scratch folder for the run, and is not touched.
        tasks: tasks and suites.
        methods: names (also `core` and `all`), plugin files, classes, or instances with their parameters. A class of a
            notebook is written into `out`/methods, with the functions that it uses.
        budgets: target shares of the layers, in (0, 1]; "auto" chooses five for the model; None is 0.25, 0.5 and 0.75
            for nano and "auto" for others.
        tokenizer: of loaded models.
        settings: parameters by the method's name: `{"static_exit": {"share": 0.5}}`.
        limit: documents per task: a number for a sample of as many, "first:N" for the first, "all"; None is the suite's
            own number, else 32 (with `official`: all).
        out: folder for records, samples, fits and the site.
        data_dir: folder of local mirrors of data sets.
        include_path: folders with task YAML of one's own.
        fewshot: examples in the prompt; None takes the task's own number, as the next two do.
        max_new_tokens: most new tokens.
        template: prompt of `file:` tasks, with `{input}`.
        metric: of `file:` tasks.
        chat_template: whether prompts are put into the model's chat template.
        system_instruction: system message of the chat template.
        think_end_token: text that ends the thinking before an answer; "auto": as the chat template says; "off".
        prompt: layers that prompts run: all, or the method's.
        kv: policy for the keys and values of skipped tokens; None takes each method's own.
        kernels: "auto" takes fused layers where they equal the model's own, "stock" these.
        batch_size: documents decoded together; None for as many as fit.
        processes: that share documents and fits; None for as many as finish soonest.
        seed: of everything random.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        dtype: "float32", "bfloat16", "float16", "int8", or "auto", the model's own; None for float32, on CUDA "auto".
        device_map: how transformers spreads the layers; None for one device.
        trust_remote_code: whether code that comes with a model may run.
        refit: whether methods are fitted again even where fits exist.
        fit_seeds: fits of each method that learns, each of which is a row; None for 1 (with `official`: 3).
        fit_tokens: most tokens of the documents that a fit learns from; None for each method's own bound.
        timing: whether times are measured in the end.
        official: whether the run follows the official protocol, and writes `out`/submission.
        author: who submits an official run.
        offline: whether the run must do without the hub.
        time_limit: such as "3h50m": the run stops by itself, and the same call goes on.
        track: experiment trackers that show the run too: "wandb", "trackio", "tensorboard".
        progress: "auto": bars on a terminal, else lines; "lines", "json", "quiet".

    Returns:
        The results. If some methods failed, their rows are left out, and a warning says why.

    Raises:
        DlbenchError: something cannot be done as asked; the message says what to do.
        KeyboardInterrupt: the time limit is over, or it was interrupted; what was decoded is kept.
    """
    out = Path(out)
    stopping.begin()
    reread()
    process_group.settle(say)
    names, parameters = resolve(_several(methods), out.expanduser() / METHODS)
    folders = tuple(map(str, _several(include_path)))  # type: ignore[arg-type]  # a text is one folder
    data = None if data_dir is None else str(data_dir)
    with stored(_several(model), tokenizer) as models:
        spec = spec_of(
            names,
            _several(tasks),
            Sources(data, folders, fewshot, max_new_tokens, template, metric, system_instruction),
            limit=None if limit is None else str(limit),
            official=official,
            fit_seeds=fit_seeds,
            time_limit=time_limit,
            models=models,
            budgets=budgets if budgets is None or budgets == "auto" else tuple(map(float, _several(budgets))),
            settings={**parameters, **{n: {**parameters.get(n, {}), **of} for n, of in (settings or {}).items()}},
            out=out,
            batch_size=batch_size,
            seed=seed,
            device=device,
            dtype=dtype,
            prompt=prompt,
            kv=kv,
            kernels=kernels,
            processes=processes,
            fit=refit,
            fit_tokens=fit_tokens,
            timing=timing,
            chat_template=chat_template,
            think_end_token=think_end_token,
            author=author,
            offline=offline,
            device_map=device_map,
            trust_remote_code=trust_remote_code,
            track=_several(track),
            progress=progress,
        )
        check_environment(spec)
        from dlbench.running.runner import execute

        try:
            execute(spec)
        except RowsLeftOutError as error:
            warnings.warn(str(error), stacklevel=2)
    return Results((spec.out,))


def _several(given: One | Sequence[One]) -> tuple[One, ...]:
    """One thing or several, as a tuple; a text is one thing."""
    return tuple(given) if isinstance(given, list | tuple) else (cast(One, given),)
