"""The options of a run, and the checks of whether it can be carried out.

`RunSpec.check` needs no torch and takes milliseconds, so a wrong option is reported at once. `check_environment`
imports what the run will import anyway: it checks the device, runs the plugin files and tries their parameters. Both
come before anything is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from dlbench.data import loader, resolve
from dlbench.data.task_options import CHAT, Sources
from dlbench.errors import DlbenchError
from dlbench.models.catalog import AUTO, DEVICE_MAPS, DTYPES, INT8, check_device, check_model, resolve_device
from dlbench.records.run_folder import RUN_FILE, check_folder
from dlbench.registry import kv_policies
from dlbench.registry import methods as registry
from dlbench.system import offline
from dlbench.system.paths import brief, expanded
from dlbench.terminal.suggest import unknown
from dlbench.tracking import tracker

if TYPE_CHECKING:
    from dlbench.method import Method, Oracle

PROMPTS = ("full", "routed")
KERNELS = ("auto", "stock")
PROGRESS = ("auto", "lines", "json", "quiet")
OF_THE_PROCESS = ("time_limit", "progress", "track")
"""Options that change nothing in what is run, and are not kept in run.json."""


@dataclass(frozen=True)
class RunSpec:
    """One run: the options of `dlbench run`."""

    models: tuple[str, ...] = ("nano",)
    """Embedded models, local folders or hub names."""
    tasks: tuple[str, ...] = field(default_factory=lambda: tuple(resolve.expand_tasks(["nano"])))
    """Names of tasks, with suites already replaced by their tasks."""
    methods: tuple[str, ...] = registry.CORE
    """Names, or paths of plugin files."""
    budgets: tuple[float, ...] | Literal["auto"] | None = None
    """Target layer shares; "auto": chosen for each model by its quality (`dlbench.running.budgets`); None: `FIXED` of
    that module for embedded models, "auto" for others."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Parameters set by the user: name of the method → parameter → value."""
    limit: int | None = 32
    """Documents per task; None for all."""
    limit_first: bool = False
    """Whether the limit takes the first documents, not a sample."""
    out: Path = Path("dlbench-out")
    batch_size: int | None = None
    """Documents decoded together; None: as many as fit the memory."""
    seed: int = 0
    device: str = "auto"
    dtype: str | None = None
    """None: the checkpoint's own on a CUDA GPU, float32 elsewhere; see `dlbench.models.loading.settled_dtype`."""
    prompt: Literal["full", "routed"] = "full"
    kv: str | None = None
    """Policy for the keys and values of skipped tokens; None: each method's own."""
    kernels: Literal["auto", "stock"] = "auto"
    """auto: fused layers where they are verified to equal the model's own; stock: the model's own only."""
    processes: int | None = None
    """None: as many as finish soonest, see `dlbench.system.processes.suitable`."""
    fit: bool = False
    """Whether methods are fitted again even where a fitted artifact exists."""
    fit_seeds: int = 1
    """Number of fits of each method that learns, with seeds from `seed` on; each is a row."""
    fit_tokens: int | Literal["all"] | None = None
    """Most tokens of the documents to learn from, and of those to tune on; None: each method's own bound."""
    timing: bool = True
    sources: Sources = field(default_factory=Sources)
    """Where tasks come from, and options that change them."""
    chat_template: Literal["auto", "on", "off"] = "auto"
    """Whether prompts are put into the chat template; auto: where the tokenizer has one and the task asks for it."""
    think_end_token: str = "auto"
    """Text that ends the thinking before an answer; "auto": as the chat template says; "off": all is the answer."""
    official: bool = False
    """Whether the run follows the official protocol, and is packed for submission; prompts are never cut."""
    author: str = ""
    """Who submits an official run."""
    offline: bool = False
    """Whether the run must do without the hub."""
    device_map: str | None = None
    """How transformers places the layers on devices; None: all on `device`."""
    trust_remote_code: bool = False
    """Whether code that comes with a model may run."""
    time_limit: float | None = None
    """Seconds after which the run stops by itself, between two waves; None for no limit."""
    progress: Literal["auto", "lines", "json", "quiet"] = "auto"
    """How progress is printed; see `dlbench.terminal.progress.Progress`."""
    track: tuple[str, ...] = ()
    """Experiment trackers that the run is shown in; see `dlbench.tracking`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", expanded(self.out, "--out"))

    @property
    def loading(self) -> dict[str, Any]:
        """Options of `dlbench.models.loading.load` beside device and dtype."""
        return {
            "device_map": self.device_map,
            "trust_remote_code": self.trust_remote_code,
            "data_dir": self.sources.data_dir,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the options as run.json keeps them."""
        options = json.loads(json.dumps(asdict(self), default=str))
        return {name: value for name, value in options.items() if name not in OF_THE_PROCESS}

    def check(self) -> None:
        """Check all that can be checked without torch.

        Raises:
            DlbenchError: an option is invalid; the message says what would be valid.
        """
        self._check_numbers()
        self._check_choices()
        for model in self.models:
            check_model(model, self.sources.data_dir)
        self.sources.check(self.tasks)
        resolve.expand_tasks(self.tasks, self.sources)
        if self.official and (found := self.task_code()):
            raise DlbenchError(
                f"task {found[0][0]!r} runs code of its own ({found[0][1]}), which nobody has vouched for: an official "
                "run takes tasks of dlbench and lm-eval, and tasks without functions"
            )
        if self.official:
            self._check_official()
        self._check_methods()
        check_folder(self.out, RUN_FILE, "run")

    def task_code(self) -> list[tuple[str, Path]]:
        """Tasks that run code of their own, each with its YAML; those of dlbench and lm-eval do not count."""
        pairs = [(name, resolve.brings_code(name, self.sources)) for name in self.tasks]
        return [(name, path) for name, path in pairs if path is not None]

    def _check_numbers(self) -> None:
        for name in ("models", "tasks", "methods", "budgets"):
            if getattr(self, name) == ():
                raise DlbenchError(f"no {name} to run: give at least one")
        for budget in self.budgets if isinstance(self.budgets, tuple) else ():
            if not (math.isfinite(budget) and 0 < budget <= 1):
                raise DlbenchError(f"budget {budget}: give a share of the layers above 0 and at most 1, such as 0.5")
        if self.limit is not None and self.limit < 1:
            raise DlbenchError(f"limit {self.limit}: give at least 1 document per task, or `all`")
        if self.batch_size is not None and self.batch_size < 1:
            raise DlbenchError(f"batch size {self.batch_size}: give at least 1, or `auto`")
        if self.fit_seeds < 1:
            raise DlbenchError(f"{self.fit_seeds} fit seeds: give at least 1")
        if isinstance(self.fit_tokens, int) and self.fit_tokens < 1:
            raise DlbenchError(f"{self.fit_tokens} fit tokens: give at least 1, or `all`")
        if self.processes is not None and self.processes < 1:
            raise DlbenchError(f"{self.processes} processes: give at least 1")
        if not 0 <= self.seed < 2**63:
            raise DlbenchError(f"seed {self.seed}: give a number from 0 to 2**63 - 1")

    def _check_official(self) -> None:
        """Refuse options that the official protocol fixes."""
        from dlbench.submission.protocol import FIT_SEEDS, SEED, missing_tasks

        if self.limit is not None:
            raise DlbenchError(f"limit {self.limit}: an official run takes all documents; leave --limit away")
        fixed = {
            "--budget": (self.budgets, None),
            "--seed": (self.seed, SEED),
            "--fit-seeds": (self.fit_seeds, FIT_SEEDS),
            "--chat-template": (self.chat_template, "auto"),
            "--think-end-token": (self.think_end_token, "auto"),
            "--fit-tokens": (self.fit_tokens, None),
            "--fewshot": (self.sources.fewshot, None),
            "--max-new-tokens": (self.sources.max_new_tokens, None),
            "--system-instruction": (self.sources.system_instruction, None),
            "--no-timing": (not self.timing, False),
        }
        for option, (given, wanted) in fixed.items():
            if given != wanted:
                raise DlbenchError(f"{option}: the official protocol fixes it; leave it away with --official")
        if missing := missing_tasks(self.tasks):
            raise DlbenchError(f"tasks: an official run takes whole suites, which would need {', '.join(missing)} too")
        if not self.author.isprintable() or len(self.author) > 200:
            raise DlbenchError("--author: give a name on one line, at most 200 characters")

    def _check_choices(self) -> None:
        if self.dtype is not None and self.dtype not in (*DTYPES, INT8, AUTO):
            raise unknown("dtype", self.dtype, (*DTYPES, INT8, AUTO))
        if "{input}" in self.prompt:
            raise DlbenchError(
                f"--prompt {brief(self.prompt)!r}: --prompt is full or routed; a text with {{input}} is a --template"
            )
        if self.prompt not in PROMPTS:
            raise unknown("prompt policy", self.prompt, PROMPTS)
        if self.kv is not None:
            kv_policies.check(self.kv)
        if self.kernels not in KERNELS:
            raise unknown("kind of kernels", self.kernels, KERNELS)
        if self.progress not in PROGRESS:
            raise unknown("kind of progress", self.progress, PROGRESS)
        if self.chat_template not in CHAT:
            raise unknown("chat template policy", self.chat_template, CHAT)
        if not self.think_end_token.strip() or not self.think_end_token.isprintable():
            raise DlbenchError(f"think end token {self.think_end_token!r}: give auto, off, or a mark such as </think>")
        if self.device_map is not None and self.device_map not in DEVICE_MAPS:
            if not self.device_map.endswith(".json"):
                raise unknown("device map", self.device_map, DEVICE_MAPS, see="a JSON file of module names and devices")
            if not expanded(Path(self.device_map), "--device-map").is_file():
                raise DlbenchError(f"no file {brief(self.device_map)} for --device-map")
        check_device(self.device)
        tracker.check(self.track)

    def _check_methods(self) -> None:
        given: dict[str, str] = {}
        for method in self.methods:
            registry.check_name(method)
            name = registry.locate(method).name
            if name in given:
                raise DlbenchError(f"method {name!r} is given twice: {given[name]} and {method}; keep one")
            given[name] = method
        for name, values in self.settings.items():
            if name not in given:
                raise unknown("method", name, given, where="in a setting")
            known = [p.name for p in registry.describe(given[name]).parameters]
            for parameter in values:
                if parameter not in known:
                    raise unknown("parameter", parameter, known, where=f"of method {name!r}")


def parse_settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parse `NAME.PARAM=VALUE` texts; a value is JSON where it parses as JSON, else text.

    Raises:
        DlbenchError: a text has another form, a number is not finite, or a parameter is set twice.
    """
    settings: dict[str, dict[str, Any]] = {}
    for text in texts:
        target, equals, raw = text.partition("=")
        name, dot, parameter = target.strip().partition(".")
        if not (equals and dot and name and parameter):
            raise DlbenchError(f"setting {text!r}: write NAME.PARAM=VALUE, such as static_exit.share=0.5")
        values = settings.setdefault(name, {})
        if parameter in values:
            raise DlbenchError(f"setting {text!r}: {name}.{parameter} is set twice; keep one")
        try:
            values[parameter] = json.loads(raw)
        except ValueError:
            values[parameter] = raw
        if isinstance(number := values[parameter], float) and not math.isfinite(number):
            raise DlbenchError(f"setting {text!r}: give a finite number")
    return settings


def check_environment(spec: RunSpec) -> None:
    """Check what needs torch or lm-eval: the device, the tasks' data, the methods' code and parameters.

    Raises:
        DlbenchError: the device or torchao is absent, a task cannot be loaded, a method is broken, or it refuses a
            parameter or the kv policy.
    """
    if spec.offline:
        offline.enforce()
    resolve_device(spec.device)
    if spec.dtype == INT8:
        from dlbench.models.quantization import torchao

        torchao()
    for name in spec.tasks:
        task = loader.load_task(name, spec.sources)
        if spec.prompt != "routed" and task.is_loglikelihood:
            raise DlbenchError(
                f"task {name!r} scores given answers by their likelihood: a prompt at full depth leaves nothing to "
                "route; add --prompt routed"
            )
    for method in spec.methods:
        name = registry.name_of(method)
        chosen = registry.load(method)
        values = spec.settings.get(name, {})
        _check_parameters(name, chosen, values)
        # In a run of `core` or `all`, methods that lack the policy are left out, and a line says so.
        if spec.kv is not None and spec.methods not in (registry.CORE, registry.names()):
            for variant in chosen.variants:
                try:
                    configured = chosen.from_params({**variant, **values})
                except (ValueError, TypeError) as error:
                    raise DlbenchError(f"method {name!r}: {error}") from error
                if lacking := lacks_policy(configured, spec.kv):
                    raise DlbenchError(f"method {name!r} {lacking}")


def lacks_policy(method: Method | Oracle, kv: str | None) -> str:
    """Say that a method does not support a kv policy; empty where it does, or where policies do not concern it."""
    if kv is None or getattr(method, "scope", "static") != "token":  # oracles choose among static sets of layers
        return ""
    policies: tuple[str, ...] = method.kv  # type: ignore[union-attr]
    return "" if kv in policies else f"does not support kv policy {kv!r}: it has {', '.join(policies)}"


def _check_parameters(name: str, chosen: registry.MethodClass, values: Mapping[str, Any]) -> None:
    from pydantic import TypeAdapter, ValidationError

    hints = get_type_hints(chosen)
    for parameter, value in values.items():
        try:
            if parameter in hints:
                TypeAdapter(hints[parameter]).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise DlbenchError(f"setting {name}.{parameter}={json.dumps(value)}: {reason}") from error
    if not values:
        return
    try:
        chosen.from_params(dict(values))
    except (ValueError, TypeError) as error:
        listed = ", ".join(f"{parameter}={json.dumps(value)}" for parameter, value in values.items())
        raise DlbenchError(f"method {name!r} refuses {listed}: {error}") from error
