"""Options that several commands have: declared once, so that one word means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dlbench.commands.options.terminal import BUDGET_HELP, at_home
from dlbench.registry import kv_policies
from dlbench.tasks import metrics

MODEL, TASKS, METHODS = "Model", "Tasks and prompts", "Methods"
COMPUTE, OUTPUT = "Machine and speed", "Output"
"""Groups in `--help`."""


def _models(incomplete: str) -> list[str]:
    from dlbench.models import catalog

    return [info.name for info in catalog.list_models() if info.kind != "family" and info.name.startswith(incomplete)]


def _tasks(incomplete: str) -> list[str]:
    from dlbench.data import resolve, suites

    names = [*suites.suites(), *(info.name for info in resolve.list_tasks(False))]
    return [name for name in names if name.startswith(incomplete)]


def method_names(incomplete: str) -> list[str]:
    """Names of methods that begin so, for shell completion."""
    from dlbench.registry import methods

    return [name for name in ("core", "all", *methods.names()) if name.startswith(incomplete)]


def _option(*names: str, group: str, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel=group, **more)


Models = Annotated[
    list[str] | None,
    _option(
        "--model", "-m", "-M",
        group=MODEL, autocompletion=_models,
        help="Embedded or prefetched model, folder, GGUF file or hub name; several by comma, or repeat. [nano]",
    ),
]  # fmt: skip
Dtype = Annotated[
    str | None,
    _option(
        "--dtype",
        group=MODEL,
        help="float32, bfloat16, float16, int8 (weights only), or auto: the model's own. [float32; CUDA: auto]",
    ),
]
DeviceMap = Annotated[
    str | None,
    _option(
        "--device-map", group=MODEL,
        help="Spread the layers over devices: auto, balanced, or a JSON file. [one device]",
    ),
]  # fmt: skip
TrustRemoteCode = Annotated[bool, _option("--trust-remote-code", group=MODEL, help="Run code that comes with a model.")]
Tasks = Annotated[
    list[str] | None,
    _option(
        "--task", "--tasks", "-t",
        group=TASKS, autocompletion=_tasks,
        help="Task or suite (lm-eval's too), task YAML, or your own file:PATH.jsonl; several by comma. [nano]",
    ),
]  # fmt: skip
Fewshot = Annotated[
    int | None,
    _option(
        "--fewshot", "--num-fewshot", "-f",
        group=TASKS, help="Few-shot examples in the prompt. [the task's own number]",
    ),
]  # fmt: skip
DataDir = Annotated[
    str | None,
    _option(
        "--data-dir", group=TASKS, envvar="DLBENCH_DATA", callback=at_home,
        help="Folder of local mirrors and models (`dlbench prefetch`), tried before the hub.",
    ),
]  # fmt: skip
IncludePath = Annotated[
    list[str] | None, _option("--include-path", group=TASKS, help="Folder with your own task YAML; repeatable.")
]
Template = Annotated[
    str | None,
    _option(
        "--template", group=TASKS, help="Prompt template of file: tasks, with {input}; \\n is a line break. [{input}]"
    ),
]
Metric = Annotated[
    str | None,
    _option(
        "--metric", group=TASKS, help=f"Metric of file: tasks: {', '.join(metrics.of_files())}. [{metrics.DEFAULT}]"
    ),
]
MaxNewTokens = Annotated[
    int | None, _option("--max-new-tokens", group=TASKS, help="Most new tokens. [the task's own limit]")
]
ChatTemplate = Annotated[
    str,
    _option(
        "--chat-template", group=TASKS,
        help="Put prompts into the model's chat template: auto (where the task asks for it), on, off.",
    ),
]  # fmt: skip
SystemInstruction = Annotated[
    str | None,
    _option("--system-instruction", group=TASKS, help="Text before every prompt, or the chat's system message."),
]
ThinkEndToken = Annotated[
    str,
    _option(
        "--think-end-token", group=TASKS, metavar="auto|off|TEXT",
        help="Text that ends the thinking before an answer, which is not scored; auto: as the chat template says.",
    ),
]  # fmt: skip
Budgets = Annotated[list[str] | None, _option("--budget", "-B", group=METHODS, metavar="SHARE|auto", help=BUDGET_HELP)]
Settings = Annotated[
    list[str] | None,
    _option("--set", group=METHODS, metavar="NAME.PARAM=VALUE", help="Set a method's parameter; repeatable."),
]
Prompt = Annotated[
    str,
    _option("--prompt", group=METHODS, help="full: prompts run every layer; routed: the method's layers."),
]
KV = Annotated[
    str | None,
    _option(
        "--kv", group=METHODS,
        help=f"Keys and values of skipped tokens: {', '.join(kv_policies.names())}. [the method's own]",
    ),
]  # fmt: skip
FitTokens = Annotated[
    str | None,
    _option(
        "--fit-tokens", group=METHODS, metavar="N|all",
        help="Most tokens of the documents that a fit learns from. [each method's bound]",
    ),
]  # fmt: skip
Refit = Annotated[bool, _option("--refit", group=METHODS, help="Fit methods again even where fits exist.")]
Kernels = Annotated[
    str,
    _option(
        "--kernels", group=COMPUTE,
        help="auto: fused layers where they are verified to equal the model's; stock: the model's own.",
    ),
]  # fmt: skip
Device = Annotated[str, _option("--device", group=COMPUTE, help="auto, cpu, cuda, cuda:N or mps.")]
BatchSize = Annotated[
    str,
    _option(
        "--batch-size", "-b", group=COMPUTE, metavar="N|auto",
        help="Documents decoded together; auto: as many as fit, at most 48 (GPU: 256).",
    ),
]  # fmt: skip
Processes = Annotated[
    str,
    _option(
        "--processes", group=COMPUTE, metavar="N|auto",
        help="Processes that share documents and fits; auto: one per core for small models on a CPU.",
    ),
]  # fmt: skip
Offline = Annotated[
    bool, _option("--offline", group=COMPUTE, help="Use mirrors, files and caches only, never the hub.")
]
TimeLimit = Annotated[
    str | None,
    _option(
        "--time-limit", group=COMPUTE, metavar="3h50m",
        help="Stop after this time, between two waves or fits; the same command goes on. [none]",
    ),
]  # fmt: skip
RunFolder = Annotated[
    Path,
    _option("--out", "--output-path", "-o", group=OUTPUT, help="Folder for fits, records, samples and the site."),
]
HowProgress = Annotated[
    str,
    _option(
        "--progress", group=OUTPUT, metavar="auto|lines|json|quiet",
        help="auto: bars on a terminal, else lines; json: for machines.",
    ),
]  # fmt: skip
Track = Annotated[
    list[str] | None,
    _option(
        "--track", group=OUTPUT, metavar="TRACKER",
        help="Show the run in wandb, trackio or tensorboard, too; several by comma.",
    ),
]  # fmt: skip
Quiet = Annotated[bool, _option("--quiet", group=OUTPUT, help="Print errors and results only: --progress quiet.")]
Verbose = Annotated[bool, _option("--verbose", group=OUTPUT, help="Print every step as a line: --progress lines.")]
AsJson = Annotated[bool, _option("--json", group=OUTPUT, help="Print JSON, for programs.")]
