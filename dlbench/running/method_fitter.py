"""Give one method its settings on one job: learn its parameters, and tune it to each budget."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from dlbench.audit.method_calls import closed_form, learn_parameters
from dlbench.errors import DlbenchError, MethodError, RecordError
from dlbench.evaluation.settings import Setting
from dlbench.fit import Facts, FitProbe, Readings, find_artifact, load_artifact, save_artifact, tune
from dlbench.forecast.fits import duration, forecast
from dlbench.forecast.speed import Clock, Speed
from dlbench.method import Method
from dlbench.records.refitted import Refitted
from dlbench.registry import methods as registry
from dlbench.registry import plugin_code
from dlbench.registry.side_effects import undone
from dlbench.running.config import RunSpec
from dlbench.running.job import Job
from dlbench.system.files import whole_folder
from dlbench.system.stopping import check_time
from dlbench.terminal.progress import Progress

LONG = 60.0
"""Seconds from which on a fit is announced on a terminal too."""


@contextlib.contextmanager
def naming_method(name: str, kind: type, errors: tuple[type[Exception], ...] = (ValueError,)) -> Iterator[None]:
    """Turn errors of a method's code into a MethodError that names the method, and its file and line.

    Args:
        name: of the method.
        kind: its class.
        errors: what counts as the method's wherever it is raised; anything else does if the method's code was running.
    """
    try:
        yield
    except DlbenchError:
        raise
    except (Exception, SystemExit) as error:
        line = plugin_code.raised_at(kind, error)
        if line is None and not isinstance(error, errors):
            raise
        label = "" if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: "
        raise MethodError(f"method {name!r}: {label}{error}" + (f" ({line})" if line else "")) from error


def takes_budgets(method: Method, given: Mapping[str, Any]) -> bool:
    """Return whether a method has a row for every budget; if not, it has one row whatever they are.

    Args:
        method: with its parameters before any fit.
        given: the parameters that the user set; a knob among them is not tuned.
    """
    if method.knob is None:
        return type(method).at is not Method.at
    return method.tuned and method.knob.name not in given


class UnfittedError(Exception):
    """A setting needs a fit that is not there, and none is to be made.

    Attributes:
        learnt: the method with what it has learnt, where only its knob is to be tuned; None where it is to learn.
    """

    def __init__(self, learnt: Method | None) -> None:
        super().__init__("not fitted yet")
        self.learnt = learnt


@dataclass
class FitContext:
    """What all fits of a run share."""

    spec: RunSpec
    progress: Progress
    reads: frozenset[int] = frozenset()
    """Layers before which any method of the run reads prompts."""
    clock: Clock = time.perf_counter
    """That the backbone's speed is measured by."""
    makes: bool = True
    """Whether fits that are not there are made; otherwise `UnfittedError` is raised."""
    _readings: tuple[Job, dict[int | None, Readings], list[Speed]] | None = None
    """What fits on the latest job have read of the backbone, by their bound in tokens, and how fast the backbone is."""

    @property
    def folder(self) -> Path:
        """Where the artifacts of the run go."""
        return self.spec.out / "fits"

    @property
    def refitted(self) -> Refitted:
        """What has been made again: with --refit, no other fits of the folder count."""
        return Refitted(self.spec.out)

    def readings(self, job: Job, tokens: int | None) -> Readings:
        """Return what earlier fits on a job, with the same bound, have read; that of another job is dropped."""
        if self._readings is None or self._readings[0] is not job:
            self._readings = job, {}, []
        return self._readings[1].setdefault(tokens, Readings(reads=self.reads))

    def speed(self, probe: FitProbe) -> Speed:
        """Return how fast the latest job's backbone is, which is measured once."""
        assert self._readings is not None
        speeds = self._readings[2]
        if not speeds:
            speeds.append(Speed(probe, self.clock))
        return speeds[0]

    def bound(self, method: Method) -> int | None:
        """Return the bound of a method's fits in tokens: what the run asks for, else its own; None for none."""
        asked = self.spec.fit_tokens
        if asked == "all":
            return None
        return method.fit_tokens if asked is None else asked

    def release(self) -> None:
        """Drop what fits have read: all are made."""
        self._readings = None

    def find(self, key: str) -> Path | None:
        """Return the folder of a fit that need not be made again, if there is one."""
        if self.spec.fit and not (self.refitted.has(key) and (self.folder / key / "fit.json").is_file()):
            return None
        return find_artifact(key, [self.folder])


class MethodFitter:
    """Gives one method its settings on one job: what it learns, and what is tuned to each budget."""

    def __init__(self, context: FitContext, job: Job, given: str, method: Method, seed: int) -> None:
        """Prepare.

        Args:
            context: shared by the fits of the run.
            job: where the method runs.
            given: the method as the user gave it.
            method: with its parameters before any fit.
            seed: of the fit and of the method's random decisions.
        """
        self.context, self.job, self.given, self.method, self.seed = context, job, given, method, seed
        self.name = registry.name_of(given)
        self.takes_budgets = takes_budgets(method, context.spec.settings.get(self.name, {}))

    @property
    def budgets(self) -> tuple[float | None, ...]:
        """The budgets of the job; None alone where the method has one row whatever they are."""
        return self.job.budgets if self.takes_budgets else (None,)

    @property
    def depth(self) -> int:
        """Layers of the backbone."""
        return self.job.engine.backbone.depth

    @property
    def label(self) -> str:
        """The method and the task, for messages."""
        return f"{self.name} on {self.job.conditions.task.name}"

    def needs_fit(self) -> bool:
        """Return whether anything is learnt or tuned: a method that meets its budgets in closed form needs no fit."""
        if self.method.learns:
            return True
        with naming_method(self.name, type(self.method)):
            return any(b is not None and closed_form(self.method, b, self.depth) is None for b in self.budgets)

    def settle(self) -> None:
        """Add a row to the job for every budget."""
        for budget in self.budgets:
            setting, artifact = self.at(budget)
            self.job.add(setting, artifact)
            if setting.budget is None:  # a fixed set of layers is one row, whatever the budget
                break

    def at(self, budget: float | None) -> tuple[Setting, Path | None]:
        """Return the method at a budget, None for as it is; and the folder of its fit, if it has one.

        Raises:
            DlbenchError: the method fails, or refuses the budget.
        """
        with naming_method(self.name, type(self.method)):
            return self._at(budget)

    def _at(self, budget: float | None) -> tuple[Setting, Path | None]:
        method = self.method
        artifact: Path | None = None
        facts: Facts | None = None
        if method.learns and not method.fits_budget:
            artifact, method, facts = self._fitted(None, None)
        closed = None if budget is None or method.fits_budget else closed_form(method, budget, self.depth)
        if closed is not None:
            artifact = None  # the parameters hold all that was learnt
            budget = None if closed is method else budget
            closed.validate(self.depth)
        elif budget is not None and method.knob is None and not method.fits_budget:
            raise ValueError(f"at({budget:g}, {self.depth}) gives no setting, and there is no knob to tune")
        elif budget is not None or (method.learns and method.fits_budget):
            artifact, method, facts = self._fitted(budget, method)
        final, learnt = method if closed is None else closed, self._learnt(method)
        return Setting(self.name, self.given, final, budget, self.seed, fit=facts, learnt=learnt), artifact

    def _fitted(self, budget: float | None, learnt: Method | None) -> tuple[Path, Method, Facts]:
        """Load the fit for a budget, making it first where there is none.

        Args:
            budget: None for what is learnt once for all budgets.
            learnt: with its learnt parameters, where only the knob is to be tuned.
        """
        job, context = self.job.unquantised, self.context
        key = job.fit_key(self.given, self.method, budget, self.seed, context.bound(self.method))
        folder = context.find(key)
        to_learn = learnt is None or not learnt.learns or learnt.fits_budget
        if folder is None and not context.makes:
            raise UnfittedError(None if to_learn else learnt)
        if folder is None:
            check_time(context.spec.time_limit)
            folder = context.folder / key
            self._fit(job, budget, None if to_learn else learnt, folder)
            if context.spec.fit:
                context.refitted.add(key)
        return folder, *load_artifact(folder, type(self.method))

    def _learnt(self, fitted: Method) -> tuple[str, ...]:
        """Names of the parameters that a fit has set, without the knob."""
        before, knob = self.method.params(), self.method.knob
        changed = (name for name, value in fitted.params().items() if value != before[name])
        return tuple(sorted(name for name in changed if knob is None or name != knob.name))

    def _fit(self, job: Job, budget: float | None, learnt: Method | None, folder: Path) -> None:
        """Learn, where nothing is learnt yet, and tune, and save the result with the facts about it."""
        probe, progress, learns = self.probe(job, budget), self.context.progress, False
        if learnt is None:
            learnt, learns = type(self.method).from_params(self.method.params()), self.method.learns
        label = f"{self.name} on {probe.task.name}" + (f" for {budget:g}" if budget is not None else "")
        rehearsed = forecast(probe, self.context.speed(probe), learnt, budget, learns=learns)
        foretold = None if rehearsed is None else rehearsed[0]
        # on a terminal the bar shows how long a short fit will take
        tell = progress.note if foretold is not None and foretold.seconds >= LONG else progress.line
        tell(f"fit: {label}: {_taken(probe, learns)}; {foretold or 'what it costs cannot be foretold'}")
        with progress.stage(label, seconds=None if foretold is None else foretold.seconds) as probe.say:
            start, realised = time.perf_counter(), None
            with self._watched(probe):
                if learns:
                    learn_parameters(learnt, probe)
                if budget is not None and learnt.knob is not None:
                    realised = tune(probe, learnt, budget)
            seconds = time.perf_counter() - start
        said = "" if foretold is None else f", {duration(foretold.seconds)} foretold"
        tell(f"fit: {label}: took {duration(seconds)}{said}")
        facts = Facts(
            method=self.name,
            task=probe.task.name,
            seed=self.seed,
            budget=budget,
            realised=realised,
            learnt_from=len(probe.learn) if self.method.learns else 0,
            tuned_on=0 if realised is None else len(probe.documents("tune")),
            tokens=probe.tokens,
            seconds=round(seconds, 1),
            foretold=None if foretold is None else round(foretold.seconds, 1),
        )
        try:
            with whole_folder(folder) as made:
                save_artifact(made, learnt, facts)
        except SafetensorError as error:  # its message holds that of the system
            raise RecordError(f"{folder}: the fit cannot be written ({error}); make room there") from error
        except OSError as error:
            raise RecordError(f"{folder}: the fit cannot be written ({error.strerror}); make room there") from error

    @contextlib.contextmanager
    def _watched(self, probe: FitProbe) -> Iterator[None]:
        """Check that a fit leaves the weights alone, and put back what else it changes.

        Raises:
            WeightsChangedError: it changed the weights.
        """

        def tell(changed: str) -> None:
            self.context.progress.note(f"method {self.name!r} changed {changed} while it was fitted: put back")

        try:
            with undone(tell):
                yield
        finally:  # a fit that fails may have changed them too
            probe.backbone.check_weights(self.name, "while it was fitted")

    def probe(self, job: Job, budget: float | None) -> FitProbe:
        """Return what a fit on a job, for a budget, is made with."""
        tokens = self.context.bound(self.method)
        parts, conditions = job.fit_parts(tokens), job.conditions
        return FitProbe(
            job.engine.backbone,
            conditions.task,
            parts.learn,
            parts.tune,
            self.seed,
            budget,
            conditions.kv(self.method),
            readings=self.context.readings(job, tokens),
            prompt=self.context.spec.prompt,
        )


def _taken(probe: FitProbe, learns: bool) -> str:
    """Say how many documents a fit takes."""
    return " and ".join(
        [*([f"{len(probe.learn):,} documents to learn from"] if learns else []), f"{len(probe.tune):,} to tune on"]
    )
