"""The settings of a run before it runs: with the fits that are there, and a forecast for those that are not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dlbench.audit.method_calls import closed_form
from dlbench.errors import MethodError
from dlbench.evaluation.settings import Setting
from dlbench.forecast.fits import Forecast, Rehearsed, forecast
from dlbench.method import Method, Static
from dlbench.running.job import Job
from dlbench.running.method_fitter import MethodFitter, UnfittedError


@dataclass(frozen=True, eq=False)
class PlannedRow:
    """A setting that a job decodes.

    Attributes:
        name: of the method.
        method: as it will run; where it is not fitted yet, after a rehearsal of the fit, or before any.
        share: of the layers that it runs, as far as that is known.
        setting: with its content key; None where it is not fitted yet.
        shown: whether it is a row of the board; otherwise an oracle chooses among it and others.
    """

    name: str
    method: Method
    budget: float | None
    seed: int
    share: float
    setting: Setting | None
    shown: bool = True

    @property
    def kind(self) -> str:
        """Names what its speed depends on beside its share of the layers: the same on all tasks, under all seeds."""
        knob = self.method.knob
        variant = next((one for one in type(self.method).variants if one.items() <= self.method.params().items()), {})
        params = {} if knob is not None or self.budget is not None else self.method.params()
        return json.dumps([self.name, dict(variant), params], default=str)


@dataclass(frozen=True)
class PlannedFit:
    """A fit that the run makes; `forecast` is None where it cannot be foretold."""

    label: str
    forecast: Forecast | None


@dataclass
class RowPlanner:
    """Gives the jobs their rows and says which fits are missing."""

    fits: list[PlannedFit] = field(default_factory=list)
    reused: int = 0
    """Rows whose fits are there."""
    failures: list[str] = field(default_factory=list)
    """Rows that a run would leave out, each with its reason."""
    fitted_bytes: int = 0
    """Of the tensors that the fits will write."""
    _rehearsed: dict[tuple[int, int | None], Rehearsed] = field(default_factory=dict)

    def rows(self, job: Job, fitters: Sequence[MethodFitter]) -> list[PlannedRow]:
        """Return the rows of a job: full depth, those of its methods, and what its oracles choose among.

        Args:
            job: with its settings for full depth and its oracles.
            fitters: of all jobs, which make no fits.
        """
        rows = [_row(job, setting) for setting in job.settings]
        for fitter in fitters:
            if fitter.job is job:
                rows += self._rows_of(fitter)
        known = {row.setting.key for row in rows if row.setting is not None}
        candidates = {one.key: one for _, several in job.oracles.values() for one in several if one.key not in known}
        return [*rows, *(_row(job, one, shown=False) for one in candidates.values())]

    def _rows_of(self, fitter: MethodFitter) -> Iterator[PlannedRow]:
        """The rows of a method, and what it is to learn first."""
        learnt: Method | None = None
        for budget in fitter.budgets:
            try:
                setting, artifact = fitter.at(budget)
            except UnfittedError as missing:
                if missing.learnt is None and learnt is None and not fitter.method.fits_budget and fitter.method.learns:
                    learnt = self._foretold(fitter, None, fitter.method, learns=True)
                method = self._at(fitter, budget, missing.learnt or learnt)
                share = 1.0 if budget is None else budget
                yield PlannedRow(fitter.name, method, budget, fitter.seed, share, None)
            except MethodError as error:
                self.failures.append(f"{fitter.label}: {error}")
                return
            else:
                setting = fitter.job.conditions.with_key(setting)
                self.reused += artifact is not None
                yield _row(fitter.job, setting)
                if setting.budget is None:  # a fixed set of layers is one row, whatever the budget
                    return

    def _at(self, fitter: MethodFitter, budget: float | None, learnt: Method | None) -> Method:
        """A method that is not fitted yet at a budget; what is to be tuned for it is foretold."""
        method = fitter.method if learnt is None else learnt
        if budget is None:
            return method
        if learnt is not None and (closed := closed_form(learnt, budget, fitter.depth)) is not None:
            return closed
        return self._foretold(fitter, budget, method, learns=learnt is None and method.learns)

    def _foretold(self, fitter: MethodFitter, budget: float | None, method: Method, *, learns: bool) -> Method:
        """Foretell a fit; return the method after a rehearsal, or as it was where it cannot be rehearsed."""
        job, context = fitter.job.unquantised, fitter.context
        probe = fitter.probe(job, budget)
        before = self._rehearsed.setdefault((id(job), context.bound(method)), Rehearsed())
        rehearsed = forecast(probe, context.speed(probe), method, budget, learns=learns, before=before)
        label = fitter.label + ("" if budget is None else f" for {budget:g}")
        self.fits.append(PlannedFit(label, None if rehearsed is None else rehearsed[0]))
        if rehearsed is None:
            return method
        copy = rehearsed[1]
        self.fitted_bytes += sum(tensor.nbytes for tensor in copy.weights().values())
        return _at_middle(copy)


def _at_middle(method: Method) -> Method:
    """A method with its knob in the middle of its range."""
    if (knob := method.knob) is None:
        return method
    copy = type(method).from_params({**method.params(), knob.name: (knob.low + knob.high) / 2})
    copy.load_weights(method.weights())
    return copy


def _row(job: Job, setting: Setting, *, shown: bool = True) -> PlannedRow:
    depth, method = job.engine.backbone.depth, setting.method
    share = 1.0 if setting.budget is None else setting.budget
    if setting.candidate is not None:
        share = len(setting.candidate.layers) / depth
    elif isinstance(method, Static):
        share = len(method.layers(depth)) / depth
    return PlannedRow(setting.name, method, setting.budget, setting.seed, share, setting, shown)
