"""One task on one backbone, with everything that will run there."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dlbench.data.document import Document, documents_sha256, with_thinking
from dlbench.data.thinking import Thinking
from dlbench.engine import Engine
from dlbench.evaluation.aggregate import Reference
from dlbench.evaluation.settings import Conditions, Setting
from dlbench.fit import bounded, halves
from dlbench.method import Method, Oracle
from dlbench.prompting.chat_template import ChatTemplate
from dlbench.prompting.tokenize import Prompted
from dlbench.records.run_folder import Store
from dlbench.records.schema import Asked
from dlbench.system.versions import commit


@dataclass(frozen=True)
class FitParts:
    """The documents that a fit takes."""

    learn: list[Document]
    tune: list[Document]
    learn_cut: bool
    """Whether the bound leaves documents out."""
    tune_cut: bool


@dataclass
class Job:
    """One task on one backbone, with everything that will run there."""

    conditions: Conditions
    engine: Engine
    documents: list[Document]
    batches: list[list[Prompted]]
    """The documents' prompts, in groups that are decoded together."""
    slots: int
    """Most rows decoded together."""
    base: Job | None = None
    """The same task on the backbone that this one is compared with; None where it is compared with itself."""
    plain: Job | None = None
    """The same task on the same model before it was quantised; None where it was not."""
    settings: list[Setting] = field(default_factory=list)
    """Rows of the board."""
    oracles: dict[str, tuple[Oracle, list[Setting]]] = field(default_factory=dict)
    """Oracle as given by the user → it and the settings that it chooses among."""
    artifacts: dict[str, Path] = field(default_factory=dict)
    """Content key → folder of the fit."""
    budgets: tuple[float, ...] = ()
    """Target layer shares of its rows."""
    chat: ChatTemplate | None = None
    """The model's chat template, where prompts are put into one."""
    thinking: Thinking | None = None
    """How the model marks its thinking before an answer; None where it does not."""
    _fit_parts: dict[int | None, FitParts] = field(default_factory=dict)

    @cached_property
    def fit_documents(self) -> tuple[list[Document], str]:
        """The documents of the fit split and their hash, read once however many settings are fitted."""
        documents = with_thinking(self.conditions.task.documents("fit", chat=self.chat), self.thinking)
        return documents, documents_sha256(documents)

    @property
    def unquantised(self) -> Job:
        """The job on the same model before it was quantised, which fits are made on; this job where it was not."""
        return self.plain or self

    @property
    def all_settings(self) -> list[Setting]:
        """Every setting once, by content key: rows and what oracles choose among."""
        candidates = [s for _, several in self.oracles.values() for s in several]
        return list({s.key: s for s in [*self.settings, *candidates]}.values())

    def add(self, setting: Setting, artifact: Path | None = None) -> None:
        """Add a row.

        Args:
            setting: its content key is set here.
            artifact: folder of the fit that it comes from.
        """
        setting = self.conditions.with_key(setting)
        if artifact is not None:
            self.artifacts[setting.key] = artifact
        self.settings.append(setting)

    def fit_parts(self, tokens: int | None) -> FitParts:
        """The documents that a fit takes under a bound in tokens, None for all; chosen once per bound."""
        if tokens not in self._fit_parts:
            learn, tune = halves(self.fit_documents[0])
            learns, tunes = (bounded(self.engine.backbone, part, tokens) for part in (learn, tune))
            self._fit_parts[tokens] = FitParts(learns, tunes, len(learns) < len(learn), len(tunes) < len(tune))
        return self._fit_parts[tokens]

    def fit_key(self, given: str, method: Method, budget: float | None, seed: int, tokens: int | None) -> str:
        """Return the content key of a fit on this job's fit split; for the arguments see `Conditions.fit_key`.

        Args:
            given: the method as the user gave it.
            method: with its parameters before the fit.
            budget: that it is fitted for.
            seed: of the fit.
            tokens: bound of the fit; it counts where it leaves out documents that the fit would use.
        """
        parts = self.fit_parts(tokens)
        cut = {"learn": len(parts.learn)} if parts.learn_cut and method.learns else {}
        if parts.tune_cut:
            cut["tune"] = len(parts.tune)
        return self.conditions.fit_key(given, method, budget, seed, self.fit_documents[1], cut)

    def reference(self, store: Store) -> Reference:
        """Full depth of this job, with which others are compared."""
        engine = self.engine
        return Reference(engine.backbone.depth, engine.costs, store.samples(self.settings[0].key))

    def env(self, batch_size: int | None) -> dict[str, str]:
        """What its records say of the machine and the kernels.

        Args:
            batch_size: as asked for; None for auto.
        """
        engine = self.engine
        wished = "" if self.conditions.task.is_loglikelihood else engine.wishes.line
        built = commit()
        return {
            **({"commit": built} if built else {}),
            **({"generation": wished} if wished else {}),
            "device": str(engine.backbone.device.type),
            "machine": platform.machine(),
            "batch_size": str(batch_size or "auto"),
            "kernels": ": ".join(filter(None, (engine.kernels, engine.kernels_note)))[:500],
            "attention": str(engine.backbone.model.config._attn_implementation),
        }


def asked(jobs: Sequence[Job]) -> list[Asked]:
    """Prompts and references of the documents of all tracks, each once."""
    tracks = {job.conditions.track: job.documents for job in jobs}
    return [
        Asked(track=track, id=d.id, prompt=d.prompt, references=d.references, source=d.source)
        for track, documents in tracks.items()
        for d in documents
    ]
