"""From the arguments of a model to an engine with one method at one budget, fitted where it has to be."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

from dlbench import __version__
from dlbench.audit.method_calls import closed_form
from dlbench.engine import Engine
from dlbench.errors import DlbenchError, MethodError
from dlbench.evaluation.settings import Setting, policy_in_force, variants
from dlbench.method import Method, Oracle
from dlbench.models.catalog import resolve_device
from dlbench.models.loading import load
from dlbench.records.run_folder import Store
from dlbench.registry import methods as registry
from dlbench.running.config import RunSpec, check_environment, lacks_policy
from dlbench.running.method_fitter import naming_method, takes_budgets
from dlbench.running.planner import Planner, lacks_states
from dlbench.terminal.progress import Progress


@dataclass(frozen=True)
class Prepared:
    """A backbone with one method at one budget."""

    engine: Engine
    setting: Setting
    kv: str
    """Policy in force for the keys and values of skipped tokens."""

    @property
    def method(self) -> Method | None:
        """What the engine runs; None for full depth."""
        return None if self.setting.name == "full" else self.setting.method


def prepare(spec: RunSpec, fit: bool) -> Prepared:
    """Load the model of a run, and set its method to its budget.

    Args:
        spec: a run of one model, one method and at most one budget.
        fit: whether its task was named to fit on.

    Raises:
        DlbenchError: something cannot be done as asked, or needs a task to fit on.
    """
    check_environment(spec if fit else replace(spec, tasks=()))
    name, budget = registry.name_of(spec.methods[0]), spec.budgets[0] if isinstance(spec.budgets, tuple) else None
    method = _as_given(spec, name)
    if budget is not None and not takes_budgets(method, spec.settings.get(name, {})):
        raise DlbenchError(f"method {name!r} has no budget that could be set: leave budget={budget:g} away")
    if lacking := lacks_policy(method, spec.kv):
        raise DlbenchError(f"method {name!r} {lacking}")
    engine, setting = _fitted(spec, name, budget) if fit else _unfitted(spec, name, method, budget)
    if lacking := lacks_states(setting.method, engine.backbone):
        raise DlbenchError(f"method {name!r} {lacking}: it does not run on {engine.backbone.kind}")
    return Prepared(engine, setting, policy_in_force(setting.method, spec.kv))


def _as_given(spec: RunSpec, name: str) -> Method:
    """The method with its parameters.

    Raises:
        DlbenchError: it is an oracle, has several variants, or refuses the parameters.
    """
    cls = registry.load(spec.methods[0])
    if issubclass(cls, Oracle):
        raise DlbenchError(f"{name} chooses among outputs by their scores: it is no model; `dlbench run` has its row")
    first, *others = variants(cls, spec.settings.get(name, {}))
    if others:
        said = " or ".join(",".join(f"{k}={v}" for k, v in one.items()) for one in (first, *others))
        raise DlbenchError(f"method {name!r} has {1 + len(others)} variants: add {said} to --model_args")
    with naming_method(name, cls, (Exception,)):
        return cls.from_params(first)


def _unfitted(spec: RunSpec, name: str, method: Method, budget: float | None) -> tuple[Engine, Setting]:
    """The engine, and a method that meets its budget in closed form, or has none.

    Raises:
        DlbenchError: it has to be fitted.
    """
    backbone = load(spec.models[0], device=resolve_device(spec.device), dtype=spec.dtype or "auto", **spec.loading)
    with naming_method(name, type(method), (Exception,)):
        final = method if budget is None or method.learns else closed_form(method, budget, backbone.depth)
        if final is None or final.learns:
            raise DlbenchError(
                f"method {name!r} is fitted: add fit_task=TASK to --model_args, a task whose fit split it learns from "
                "and is tuned on; out=FOLDER keeps the fit"
            )
        final.validate(backbone.depth)
    engine = Engine(backbone, kernels="stock" if backbone.spread else spec.kernels)
    return engine, Setting(name, spec.methods[0], final, budget, spec.seed)


def _fitted(spec: RunSpec, name: str, budget: float | None) -> tuple[Engine, Setting]:
    """The engine, and a method that is fitted on the run's task, with the fit that a run would make or find.

    Raises:
        DlbenchError: the fit fails, or has to know the budget.
    """
    progress, store = Progress(True, spec.progress), Store(spec.out)
    planner = Planner(spec, resolve_device(spec.device), progress, 1, lambda word: word)
    jobs = planner.load()
    fitters = planner.fitters(jobs)
    if budget is None and any(fitter.takes_budgets for fitter in fitters):
        raise DlbenchError(f"method {name!r} is tuned to a budget: add budget=SHARE to --model_args")
    with contextlib.closing(store), progress:
        store.open({"dlbench": __version__, "spec": spec.to_json()})
        planner.fit(fitters)
    if planner.failures:
        raise MethodError("; ".join(planner.failures))
    for job in jobs:
        for setting in job.settings:
            if setting.name == name and any(fitter.job is job for fitter in fitters):
                return job.engine, setting
    raise DlbenchError(f"method {name!r} has no row on {spec.models[0]} with these arguments; see above")
