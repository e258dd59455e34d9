"""What is evaluated: one `Setting` per decoding of the test documents, and the content key under which it is kept."""

from __future__ import annotations

import hashlib
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
from dlbench.records.track import PROTOCOL, content_key, track_name
from dlbench.registry import methods as registry
from dlbench.registry import provenance
from dlbench.system.versions import versions

Purpose = Literal["row", "candidate", "sampled"]


@dataclass(frozen=True)
class Setting:
    """One way to decode the test documents of a task."""

    name: str
    """The method's name on the board."""
    given: str
    """The method as the user gave it: its name, or the path of a plugin file."""
    method: Method
    budget: float | None
    """Target layer share; None where there is no target."""
    seed: int = 0
    """Seed of the method's random decisions and of its fit."""
    purpose: Purpose = "row"
    """A row of the board, or one of the runs that oracle rows are computed from."""
    sample: int | None = None
    """Number of the random stream that tokens are sampled with; None decodes greedily."""
    candidate: Candidate | None = None
    key: str = ""
    fit: Facts | None = None
    """Facts of its fit; None where nothing was fitted."""
    learnt: tuple[str, ...] = ()
    """Names of the parameters that the fit set, without the knob."""

    def output_key(self, depth: int) -> tuple[Any, ...] | None:
        """Return a key that settings with the same outputs share, so that only one runs; None where that is unknown."""
        if self.name == "full":
            return self.sample, (Action.RUN,) * depth
        return (self.sample, self.method.actions(depth)) if isinstance(self.method, Static) else None


@dataclass(frozen=True)
class Conditions:
    """What a method runs under: all that a content key depends on beside the method, and facts for the records."""

    backbone: Backbone
    task: Task
    documents_sha256: str
    """Over the whole scored split, see `documents_sha256`."""
    prompt: Literal["full", "routed"] = "full"
    """Layers that prompts run: all, or the method's."""
    kv_policy: str | None = None
    """Policy asked for, for the keys and values of skipped tokens; None takes each method's own."""
    limit_first: bool = False
    """Whether a limit takes the first documents, not a sample of them."""
    with_bos: int | None = None
    """Number of prompts that begin with a begin-of-text token."""
    chat_sha256: str | None = None
    """sha256 of the chat template that prompts are put into."""
    of: int | None = None
    """Number of documents in the scored split."""
    fit_overlap: int = 0
    """Number of documents left out of fitting because they are also scored."""
    notes: tuple[str, ...] = ()
    """Notes for every record of the task."""
    compared: str | None = None
    """Hash of the backbone that is compared with where the base does not run, in a track of its own: this one, or what
    it was before it was quantised. None where the base runs."""

    @property
    def base_sha256(self) -> str:
        """Hash of the backbone whose full depth is compared with."""
        return self.compared or self.backbone.base_sha256

    @property
    def track(self) -> str:
        """Name of the track: only rows of one track may be ranked together."""
        return track_name(
            self.base_sha256,
            self.task,
            self.documents_sha256,
            prompt=self.prompt,
            generation=self.generation,
        )

    @property
    def generation(self) -> str:
        """Digest of what the model's generation_config changes; empty if that is nothing, or nothing is generated."""
        return "" if self.task.is_loglikelihood else wishes(self.backbone.model).digest

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the packages that these outputs may depend on."""
        if self.backbone.dtype == INT8:
            return versions("torchao")
        scheme = (self.backbone.quantization or "").partition(" ")[0]
        return versions(scheme) if scheme in ("torchao", "bitsandbytes") else versions()

    def kv(self, method: Method) -> str:
        """Return the policy in force for the keys and values of skipped tokens: see `policy_in_force`."""
        return policy_in_force(method, self.kv_policy)

    def state(self, method: Method) -> Literal["hold", "recompute"] | None:
        """Return what becomes of recurrent states that a token skips; None for a model without recurrent layers."""
        if not self.backbone.recurrent:
            return None
        return "recompute" if method.scope == "token" and self.kv(method) == "recompute" else "hold"

    def key(self, setting: Setting) -> str:
        """Return the content key of a setting: a hash of all that its outputs and scores depend on."""
        return content_key(self.content(setting))

    def content(self, setting: Setting) -> dict[str, Any]:
        """Return all that the outputs and scores of a setting depend on, as JSON has it."""
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
            "prompt": self.prompt,
            "kv": self.kv(setting.method),
            "seed": setting.seed,
            "sample": setting.sample,
            "versions": self.versions,
        }
        if self.generation:
            content["generation"] = self.generation
        return content

    def fit_key(
        self,
        given: str,
        method: Method,
        budget: float | None,
        seed: int,
        fit_sha256: str,
        cut: Mapping[str, int] | None = None,
    ) -> str:
        """Return the content key of a fit: a hash of all that a fitted artifact depends on.

        Unlike the key of a setting it includes the code that fits, and no versions of libraries: fits are made once and
        shipped.

        Args:
            given: the method as the user gave it.
            method: with its parameters before the fit.
            budget: that it is fitted for; None for a fit that serves all budgets.
            seed: of the fit.
            fit_sha256: hash of the fit split's documents.
            cut: number of documents of each part that a bound in tokens leaves, where it leaves out any.
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
            "prompt": self.prompt,
            "kv": self.kv(method),
            "generation": self.generation,
        }
        if cut:
            content["documents"] = dict(cut)
        return content_key(content)

    def with_key(self, setting: Setting) -> Setting:
        """Return the setting with its content key."""
        return replace(setting, key=self.key(setting))


def policy_in_force(method: Method, asked: str | None) -> str:
    """Return the policy for the keys and values of skipped tokens: the one asked for, where it matters.

    A static or per-sequence method never runs a layer that it has skipped, so all policies are the same for it.
    """
    return asked if asked is not None and method.scope == "token" else method.kv[0]


@cache
def source_sha256(method: str) -> str:
    """Return the sha256 of a method's code, given by name or path; cached, since code is imported once per process."""
    source = registry.locate(method)
    if source.origin not in ("file", "built-in"):
        return provenance.installed(source.module, source.origin)
    assert source.path is not None
    return provenance.file(source.path) if source.origin == "file" else provenance.built_in(source.path)


@cache
def fitting_sha256() -> str:
    """Return the sha256 of the code that fits; cached for the process."""
    return provenance.fitting()


def variants(cls: type[Method] | type[Oracle], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parameter sets to run: the class's variants, overridden by the user's settings, each once."""
    parameter_sets: list[dict[str, Any]] = []
    for variant in cls.variants:
        merged = {**variant, **given}
        if merged not in parameter_sets:
            parameter_sets.append(merged)
    return parameter_sets


def full() -> Method:
    """Return the method that runs every layer."""
    cls = registry.load("full")
    assert issubclass(cls, Method)
    return cls()


def oracle_settings(oracle: Oracle, depth: int, seed: int) -> list[Setting]:
    """Return every candidate as a static setting, and as many full-depth settings: one greedy, the others sampled."""
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
