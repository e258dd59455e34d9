"""Give one method its settings on one job: what it learns, and what is tuned to each budget."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlbench.data.task import Document
from dlbench.errors import DlbenchError
from dlbench.evaluation.settings import Setting
from dlbench.fit import Facts, FitProbe, find_artifact, halves, load_artifact, save_artifact, tune
from dlbench.method import Method
from dlbench.registry import methods as registry

if TYPE_CHECKING:
    from dlbench.run.planner import Job, Planner


@contextlib.contextmanager
def blaming(method: str, errors: tuple[type[Exception], ...] = (ValueError,)) -> Iterator[None]:
    """Name the method that such an error comes from."""
    try:
        yield
    except DlbenchError:
        raise
    except errors as error:
        kind = "" if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: "
        raise DlbenchError(f"method {method!r}: {kind}{error}") from error


class Learner:
    """Gives one method its settings on one job, with what it learns and what is tuned."""

    def __init__(self, planner: Planner, job: Job, given: str, method: Method, seed: int) -> None:
        self.planner, self.job, self.given, self.method, self.seed = planner, job, given, method, seed
        self.name = registry.name_of(given)
        spec, knob = planner.spec, method.knob
        if knob is None:
            pinned = type(method).at is Method.at
        else:
            pinned = not method.tuned or knob.name in spec.settings.get(self.name, {})
        self.budgets: tuple[float | None, ...] = (None,) if pinned else spec.budgets

    def settle(self) -> None:
        """Give the job the method at every budget."""
        for budget in self.budgets:
            setting, artifact = self.at(budget)
            setting = self.job.place.with_key(setting)
            if artifact is not None:
                self.job.artifacts[setting.key] = artifact
            self.job.settings.append(setting)
            if setting.budget is None:  # a set given outright has nothing to tune: one row
                break

    def at(self, budget: float | None) -> tuple[Setting, Path | None]:
        """The method at a budget, None for as it stands; and the artifact that it comes from, if any.

        Raises:
            DlbenchError: the method fails, or refuses the budget.
        """
        with blaming(self.name):
            return self._at(budget)

    def _at(self, budget: float | None) -> tuple[Setting, Path | None]:
        depth, method = self.job.engine.backbone.depth, self.method
        artifact: Path | None = None
        facts: Facts | None = None
        if method.learns and not method.fits_budget:
            artifact, method, facts = self._artifact(None, None)
        closed = None if budget is None or method.fits_budget else method.at(budget, depth)
        if closed is not None:
            artifact = None  # all that was learnt is in the parameters
            budget = None if closed is method else budget
            closed.validate(depth)
        elif budget is not None and method.knob is None and not method.fits_budget:
            raise ValueError(f"at({budget:g}, {depth}) gives no setting, and there is no knob to tune")
        elif budget is not None or (method.learns and method.fits_budget):
            artifact, method, facts = self._artifact(budget, method)
        made, learnt = method if closed is None else closed, self._learnt(method)
        return Setting(self.name, self.given, made, budget, self.seed, fit=facts, learnt=learnt), artifact

    def _artifact(self, budget: float | None, learnt: Method | None) -> tuple[Path, Method, Facts]:
        """What the fit for a budget left, made now if it is not there; `learnt`: what is to be tuned only."""
        learner, planner = self.job.plain, self.planner
        documents, sha256 = learner.fit_documents
        key = learner.place.fit_key(self.given, self.method, budget, self.seed, sha256)
        own = planner.fits / key
        folder = None if planner.spec.fit and not self._fresh(own) else find_artifact(key, [planner.fits])
        if folder is None:
            folder = own
            self._fit(learner, budget, learnt, documents, folder)
        return folder, *load_artifact(folder, type(self.method))

    def _learnt(self, fitted: Method) -> tuple[str, ...]:
        """The parameters that a fit has set, the knob apart."""
        before, knob = self.method.params(), self.method.knob
        changed = (name for name, value in fitted.params().items() if value != before[name])
        return tuple(sorted(name for name in changed if knob is None or name != knob.name))

    def _fresh(self, folder: Path) -> bool:
        """Whether an artifact was made by this very run: with --fit, older ones do not count."""
        made = folder / "fit.json"
        return made.is_file() and made.stat().st_mtime >= self.planner.started

    def _fit(
        self, job: Job, budget: float | None, learnt: Method | None, documents: Sequence[Document], folder: Path
    ) -> None:
        learn, rest = halves(documents)
        label = f"{self.name} on {job.place.task.name}" + (f" for {budget:g}" if budget is not None else "")
        with self.planner.progress.stage(label) as say:
            start, realised = time.perf_counter(), None
            backbone, task, kv = job.engine.backbone, job.place.task, job.place.kv(self.method)
            readings, prompt = self.planner.readings(job), self.planner.spec.prompt
            probe = FitProbe(backbone, task, learn, rest, self.seed, budget, kv, say, readings=readings, prompt=prompt)
            if learnt is None or not learnt.learns or learnt.fits_budget:
                learnt = type(self.method).from_params(self.method.params())
                if learnt.learns:
                    learnt.fit(probe)
            if budget is not None and learnt.knob is not None:
                realised = tune(probe, learnt, budget)
            seconds = round(time.perf_counter() - start, 1)
        facts = Facts(
            method=self.name,
            task=job.place.task.name,
            seed=self.seed,
            budget=budget,
            realised=realised,
            learnt_from=len(learn) if self.method.learns else 0,
            tuned_on=0 if realised is None else len(probe.documents("tune")),
            tokens=probe.tokens,
            seconds=seconds,
        )
        save_artifact(folder, learnt, facts)
