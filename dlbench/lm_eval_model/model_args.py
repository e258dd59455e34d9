"""What lm-eval's `--model_args` says: which model, which method at which budget, and what concerns lm-eval itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dlbench.data import resolve
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.registry import methods as registry
from dlbench.running.config import RunSpec

OF_HF = (
    *("add_bos_token", "prefix_token_id", "max_length", "truncation"),
    *("think_end_token", "enable_thinking", "chat_template_args"),
)
"""Arguments of lm-eval's `hf` model that concern texts, not weights; they mean here what they mean there."""


@dataclass(frozen=True)
class ModelArgs:
    """The arguments that are dlbench's, by the names that `--model_args` gives them; see `dlbench run --help`."""

    pretrained: str
    """Embedded or prefetched model, folder, GGUF file, or hub name (`name@revision`)."""
    method: str = "full"
    """Name, or path of a plugin file."""
    budget: float | None = None
    """Target layer share; None: the method as its parameters say."""
    fit_task: str | None = None
    """Task of dlbench or lm-eval whose fit split a method that is fitted learns from and is tuned on."""
    out: str = "dlbench-out"
    """Run folder that fits are kept in; nothing is written where nothing is fitted."""
    prompt: str = "full"
    """Layers that the prompts of generated texts run: "full" or "routed". Log-likelihoods are always "routed"."""
    kv: str | None = None
    kernels: str = "auto"
    dtype: str = "auto"
    """As lm-eval's default: the checkpoint's own."""
    device: str = "auto"
    seed: int = 0
    """Of the method's random decisions and of its fit."""
    data_dir: str | None = None
    device_map: str | None = None
    trust_remote_code: bool = False

    def spec(self, params: Mapping[str, Any]) -> RunSpec:
        """Return the run that these arguments describe, checked as far as that needs no torch.

        Args:
            params: parameters of the method.

        Raises:
            DlbenchError: an argument is invalid; the message says what would be valid.
        """
        sources = Sources(self.data_dir)
        tasks = RunSpec().tasks if self.fit_task is None else tuple(resolve.expand_tasks([self.fit_task], sources))
        if self.fit_task is not None and len(tasks) > 1:
            raise DlbenchError(f"fit_task={self.fit_task} is several tasks: name the one to fit on")
        spec = RunSpec(
            models=(self.pretrained,),
            tasks=tasks,
            methods=(self.method,),
            budgets=None if self.budget is None else (self.budget,),
            settings={registry.name_of(self.method): dict(params)} if params else {},
            limit=1,
            out=Path(self.out),
            seed=self.seed,
            device=self.device,
            dtype=self.dtype,
            prompt=self.prompt,  # type: ignore[arg-type]  # checked in the next line
            kv=self.kv,
            kernels=self.kernels,  # type: ignore[arg-type]  # checked likewise
            timing=False,
            sources=sources,
            device_map=self.device_map,
            trust_remote_code=self.trust_remote_code,
        )
        spec.check()
        return spec


def parse(given: Mapping[str, Any]) -> tuple[ModelArgs, dict[str, Any], dict[str, Any]]:
    """Divide what `--model_args` gives: dlbench's arguments, those of `hf`, and the method's parameters.

    Raises:
        DlbenchError: there is no `pretrained`, or an argument is of another kind than it should be.
    """
    own = {field.name for field in fields(ModelArgs)}
    values = {name: _value(name, value) for name, value in given.items() if name in own and value is not None}
    if "pretrained" not in values:
        raise DlbenchError("--model_args: name the model, such as pretrained=nano,method=static_skip,budget=0.5")
    hf = {name: value for name, value in given.items() if name in OF_HF}
    params = {name: value for name, value in given.items() if name not in own and name not in OF_HF}
    return ModelArgs(**values), hf, params


def _value(name: str, value: object) -> Any:
    """An argument as `ModelArgs` has it; lm-eval makes numbers and booleans of texts that look like some."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "budget" and number:
        return float(str(value))
    if name == "seed" and isinstance(value, int) and number:
        return value
    if name == "trust_remote_code" and isinstance(value, bool):
        return value
    if name in ("budget", "seed", "trust_remote_code"):
        kind = {"budget": "a share of the layers, such as 0.5", "seed": "a whole number"}.get(name, "True or False")
        raise DlbenchError(f"--model_args: {name}={value}: give {kind}")
    return str(value)
