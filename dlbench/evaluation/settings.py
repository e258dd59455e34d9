"""What a run will do: one `Setting` per decoding of the test documents, each with its content key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from dlbench.data.task import Task
from dlbench.fit.artifacts import Facts
from dlbench.method import Action, Candidate, Method, Oracle, Static
from dlbench.models.backbone import Backbone
from dlbench.models.catalog import INT8
from dlbench.models.generation_config import wishes
from dlbench.registry import methods as registry
from dlbench.registry import provenance
from dlbench.run.config import RunSpec
from dlbench.system.versions import versions

PROTOCOL = 3
"""Raised whenever a change of dlbench may change outputs or scores: rows of different protocols never share a track."""

Part = Literal["row", "candidate", "sampled"]


@dataclass(frozen=True)
class Setting:
    """One way to decode the test documents of a task."""

    name: str
    """The method as the board names it."""
    given: str
    """How the registry finds its source: its name, or the path of a plugin file."""
    method: Method
    budget: float | None
    """Target layer share; None where nothing is aimed at."""
    seed: int = 0
    """Of the method's noise and of its fit."""
    part: Part = "row"
    """A row of the board, or material for the oracle."""
    sample: int | None = None
    """Stream of sampling noise; None decodes greedily."""
    candidate: Candidate | None = None
    key: str = ""
    fit: Facts | None = None
    """How it was fitted; None where nothing was."""
    learnt: tuple[str, ...] = ()
    """Parameters that the fit set, the knob apart."""

    def alike(self, depth: int) -> tuple[Any, ...] | None:
        """Settings with an equal answer decode the same way and need to run once; None where that is unknown."""
        if self.name == "full":
            return self.sample, (Action.RUN,) * depth
        return (self.sample, self.method.actions(depth)) if isinstance(self.method, Static) else None


@dataclass(frozen=True)
class Place:
    """Where a setting runs: everything but the method that a content key depends on."""

    backbone: Backbone
    task: Task
    documents_sha256: str
    spec: RunSpec
    with_bos: int | None = None
    """Prompts of the run that begin with a begin-of-text token."""
    chat_sha256: str | None = None
    """Of the chat template that the prompts stand in."""
    of: int | None = None
    """Documents of the scored split."""
    fit_overlap: int = 0
    """Documents that methods would have been fitted on, had they not been scored too."""
    notes: tuple[str, ...] = ()
    """What every record of the task has to say."""

    @property
    def track(self) -> str:
        """Rows that may be ranked together share it."""
        parts = [
            f"base={self.backbone.base_sha256[:12]}",
            f"task={self.task.name}@{self.task.version}",
            f"data={self.documents_sha256[:12]}",
            f"prompt={self.spec.prompt}",
            "loglikelihood" if self.task.is_loglikelihood else f"greedy<={self.task.max_new_tokens}",
            *([f"generation={self.generation}"] if self.generation else []),
            f"protocol={PROTOCOL}",
        ]
        return " ".join(parts)

    @property
    def generation(self) -> str:
        """Tells apart what is done of the model's generation_config; empty where nothing is, or nothing is written."""
        return "" if self.task.is_loglikelihood else wishes(self.backbone.model).digest

    @property
    def versions(self) -> dict[str, str]:
        """Versions that these outputs may depend on."""
        return versions("torchao") if self.backbone.dtype == INT8 else versions()

    def kv(self, method: Method) -> str:
        """The policy in force for keys and values of skipped tokens: the one asked for, where it can matter.

        A static or per-sequence method never comes back to a layer that it left out: all policies are one to it.
        """
        return self.spec.kv if self.spec.kv is not None and method.scope == "token" else method.kv[0]

    def key(self, setting: Setting) -> str:
        """The content key of a quality run: what its outputs and scores depend on, and nothing else."""
        weights = hashlib.sha256()
        for name, tensor in sorted(setting.method.weights().items()):
            weights.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        content: dict[str, Any] = {
            "protocol": PROTOCOL,
            "backbone": self.backbone.sha256,
            "weights": self.backbone.weights_sha256,
            "dtype": self.backbone.dtype,
            "device": self.backbone.device.type,
            "attention": self.backbone.model.config._attn_implementation,
            "method": [source_sha256(setting.given), setting.method.params(), weights.hexdigest()],
            "task": [self.task.name, self.task.version, self.documents_sha256, self.task.max_new_tokens],
            "prompt": self.spec.prompt,
            "kv": self.kv(setting.method),
            "seed": setting.seed,
            "sample": setting.sample,
            "versions": self.versions,
        }
        if self.generation:
            content["generation"] = self.generation
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    def fit_key(self, given: str, method: Method, budget: float | None, seed: int, fit_sha256: str) -> str:
        """The content key of a fitted artifact: what was learnt or tuned depends on it. `method` is as before the fit.

        Unlike the key of a quality run it holds the code of the fit itself, and no releases of libraries: fits are made
        once and shipped.
        """
        content: dict[str, Any] = {
            "protocol": PROTOCOL,
            "backbone": self.backbone.sha256,
            "weights": self.backbone.weights_sha256,
            "dtype": self.backbone.dtype,
            "fit": fitting_sha256(),
            "method": [source_sha256(given), method.params()],
            "task": [self.task.name, self.task.version, fit_sha256, self.task.scoring_sha256],
            "budget": budget,
            "seed": seed,
            "prompt": self.spec.prompt,
            "kv": self.kv(method),
            "generation": self.generation,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    def with_key(self, setting: Setting) -> Setting:
        """The setting with its content key."""
        return replace(setting, key=self.key(setting))


@cache
def source_sha256(method: str) -> str:
    """sha256 of the code behind a method, given by name or path: once per process, as code is imported once."""
    source = registry.locate(method)
    if source.origin not in ("file", "built-in"):
        return provenance.installed(source.module, source.origin)
    assert source.path is not None
    return provenance.file(source.path) if source.origin == "file" else provenance.built_in(source.path)


@cache
def fitting_sha256() -> str:
    """sha256 of the code that fits go through: once per process."""
    return provenance.fitting()


def variants(cls: type[Method] | type[Oracle], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Parameter sets to run: the class's variants under the user's settings, without repetitions."""
    found: list[dict[str, Any]] = []
    for variant in cls.variants:
        merged = {**variant, **given}
        if merged not in found:
            found.append(merged)
    return found


def full() -> Method:
    """The method that runs everything."""
    cls = registry.load("full")
    assert issubclass(cls, Method)
    return cls()


def oracle_settings(oracle: Oracle, depth: int, seed: int) -> list[Setting]:
    """Every candidate as a static setting, and as many full-depth outputs: one greedy, the others sampled."""
    static = registry.load("static_skip")
    assert issubclass(static, Method)
    candidates = oracle.candidates(depth)
    everything = next((c for c in candidates if len(c.layers) == depth), Candidate("full", tuple(range(depth))))
    settings = [
        Setting(
            "static_skip", "static_skip", static.from_params({"only": c.layers}), None, seed, "candidate", candidate=c
        )
        for c in candidates
        if c is not everything
    ]
    settings.append(Setting("full", "full", full(), None, seed, "candidate", candidate=everything))
    for stream in range(1, len(candidates)):
        settings.append(Setting("full", "full", full(), None, seed, "sampled", stream, everything))
    return settings
