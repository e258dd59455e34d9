"""Decide what runs where: backbones, tasks, settings and their fits."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from typing import get_args
from uuid import uuid4

from dlbench.data.document import Document, documents_sha256, with_thinking
from dlbench.data.loader import load_task
from dlbench.data.splits import sample
from dlbench.data.task import Task
from dlbench.data.thinking import choose as choose_thinking
from dlbench.engine import Engine
from dlbench.errors import DlbenchError, MethodError
from dlbench.evaluation.settings import Conditions, Setting, full, oracle_settings, variants
from dlbench.method import Draft, Method, Oracle, Router
from dlbench.method.actions import Scope
from dlbench.models.backbone import Backbone
from dlbench.models.batch_size import most_rows, most_slots
from dlbench.models.catalog import INT8
from dlbench.models.loading import EMBEDDED, load, plain_dtype, settled_dtype
from dlbench.prompting.batching import waves
from dlbench.prompting.chat_template import choose as choose_template
from dlbench.prompting.tokenize import tokenise
from dlbench.registry import methods as registry
from dlbench.registry import plugin_code
from dlbench.running.budgets import FIXED, initial
from dlbench.running.config import RunSpec, lacks_policy
from dlbench.running.job import Job
from dlbench.running.method_fitter import FitContext, MethodFitter, naming_method
from dlbench.running.notices import Notices
from dlbench.system.files import SCRATCH
from dlbench.system.processes import Turns
from dlbench.terminal.progress import Progress


def lacks_states(method: Method, backbone: Backbone) -> str:
    """Say why a method does not work with a model's recurrent layers; empty where it does, or where there are none."""
    if not backbone.recurrent:
        return ""
    if isinstance(method, Draft):
        return "takes back rejected drafts, and a recurrent layer cannot go back to an earlier state"
    if isinstance(method, Router) and method.learns:
        return "is trained under teacher forcing, where tokens that skip a recurrent layer would enter its state"
    if backbone.family.recurrence == "mamba" and method.learns:
        return "is fitted on texts that are read in two parts, and transformers' Mamba forgets the first"
    return ""


class Planner:
    """Makes the jobs of a run; the processes of a run divide the fits among them and wait for each other."""

    def __init__(
        self, spec: RunSpec, device: str, progress: Progress, processes: int, meet: Callable[[str], str]
    ) -> None:
        """Prepare.

        Args:
            spec: the run.
            device: the torch device of this process.
            progress: shows the fits.
            processes: how many share the documents and the fits.
            meet: returns when all processes have called it, with the argument of the first process.
        """
        self.spec, self.device, self.progress = spec, device, progress
        self.processes, self.meet = processes, meet
        self.fits = FitContext(spec, progress)
        self.notices = Notices(progress)
        self.failures: list[str] = []
        """Rows that could not be fitted, each with its reason."""

    def load(self) -> list[Job]:
        """Load backbones and tasks, and check every method against every depth; nothing is written yet.

        Raises:
            DlbenchError: a model, a task or a method cannot be loaded, or a parameter is invalid.
        """
        engines = [self._engine(name, dtype) for name, dtype in self._backbones()]
        bases_first = sorted(engines, key=_derived)
        for engine in bases_first:
            if self._runs_methods(engine.backbone):
                self._methods(engine.backbone.depth)
        jobs: list[Job] = []
        unquantised = {e.backbone.source: e.backbone.sha256 for e in engines if e.backbone.dtype != INT8}
        for name in self.spec.tasks:
            task = load_task(name, self.spec.sources)
            self.notices.fit_overlap(task)
            made: dict[str, Job] = {}
            for engine in bases_first:
                backbone = engine.backbone
                plain = made.get(unquantised[backbone.source]) if backbone.dtype == INT8 else None
                compared = None if backbone.base_sha256 in unquantised.values() else unquantised[backbone.source]
                job = self._job(engine, task, compared)
                job.plain, job.base = plain, made.get(job.conditions.base_sha256)
                made.setdefault(backbone.sha256, job)
                jobs.append(job)
        return jobs

    def _runs_methods(self, backbone: Backbone) -> bool:
        """Whether methods run on a backbone that is loaded; others are compared with, at full depth."""
        return backbone.source in self.spec.models and (backbone.dtype == INT8) == (self.spec.dtype == INT8)

    def _backbones(self) -> list[tuple[str, str]]:
        """Name and dtype of every backbone that runs: the models asked for, and those that they are compared with.

        A model that was asked for in int8 is compared with itself before quantisation; an embedded model with the
        smaller dense model of the same training. Both run at full depth only.
        """
        asked = self.spec.models
        smaller = [n for name in asked for n, base in EMBEDDED.items() if base == name and n not in asked]
        dtypes = {name: settled_dtype(self.spec.dtype, name, self.device) for name in (*asked, *smaller)}
        plain = [(name, plain_dtype(dtype, self.device)) for name, dtype in dtypes.items()]
        return list(dict.fromkeys([*((name, dtypes[name]) for name in asked), *plain]))

    def _engine(self, name: str, dtype: str) -> Engine:
        backbone = load(name, device=self.device, dtype=dtype, **self.spec.loading)
        backbone.guard_weights()
        self.notices.checkpoint(backbone, dtype)
        self.notices.int8(backbone)
        # Weights that are elsewhere until their layer is called cannot be fused.
        return Engine(backbone, kernels="stock" if backbone.spread else self.spec.kernels)

    def _methods(self, depth: int) -> list[tuple[str, Method | Oracle]]:
        """Every method of the run as given, with its parameters, checked against a depth."""
        methods: list[tuple[str, Method | Oracle]] = []
        for given in self.spec.methods:
            name = registry.name_of(given)
            cls = registry.load(given)
            for params in variants(cls, self.spec.settings.get(name, {})):
                with naming_method(name, cls, (Exception,)):
                    method = cls.from_params(params)
                    method.validate(depth)
                    if isinstance(method, Method) and method.scope not in get_args(Scope):
                        where = plugin_code.place(cls, "scope")
                        raise ValueError(f"scope {method.scope!r} is none of {', '.join(get_args(Scope))} ({where})")
                methods.append((given, method))
        return methods

    def _job(self, engine: Engine, task: Task, compared: str | None) -> Job:
        """A task on a backbone, without settings yet; for what it is compared with see `Conditions.compared`."""
        backbone = engine.backbone
        if not task.is_loglikelihood:
            self.notices.generation_config(engine)
        chat = choose_template(backbone.name, backbone.tokenizer, task.wants_chat, self.spec.chat_template)
        thinking = None
        if not task.is_loglikelihood:
            thinking = choose_thinking(self.spec.think_end_token, backbone.tokenizer, chat is not None)
        if thinking is not None:
            self.notices.thinking(task, backbone, thinking)
        split = with_thinking(task.documents("test", chat=chat), thinking)
        documents = self._limited(split)
        prompted = tokenise(engine, documents)
        self.notices.cut_prompts(task, backbone, prompted, official=self.spec.official)
        self.notices.rereading(task, engine, prompted)
        conditions = Conditions(
            backbone,
            task,
            documents_sha256(split),
            prompt=self.spec.prompt,
            kv_policy=self.spec.kv,
            limit_first=self.spec.limit_first,
            with_bos=sum(p.with_bos for p in prompted),
            chat_sha256=None if chat is None else chat.sha256,
            of=len(split),
            fit_overlap=task.fit_overlap,
            notes=self.notices.complaints(task, documents),
            compared=compared,
        )
        slots = self.spec.batch_size or most_slots(backbone.device.type)
        batches = waves(prompted, most_rows(slots, len(documents), self.processes), self.processes)
        return Job(
            conditions, engine, documents, batches, slots, budgets=initial(self.spec), chat=chat, thinking=thinking
        )

    def _limited(self, split: list[Document]) -> list[Document]:
        """The documents that the run takes, in the task's order."""
        limit = self.spec.limit
        if limit is None or self.spec.limit_first:
            return split[:limit]
        return [split[index] for index in sample([d.id for d in split], limit)]

    def fitters(self, jobs: Sequence[Job]) -> list[MethodFitter]:
        """Give every job full depth and the oracles; return what gives it the other methods."""
        fitters: list[MethodFitter] = []
        for job in jobs:
            job.add(Setting("full", "full", full(), None, self.spec.seed))
            backbone = job.engine.backbone
            if not self._runs_methods(backbone):
                continue
            for given, method in self._methods(backbone.depth):
                if isinstance(method, Oracle):
                    self._add_oracle(job, given, method)
                elif (name := registry.name_of(given)) != "full":
                    try:
                        with naming_method(name, type(method), ()):
                            fitters += self._fitters_of(job, given, method)
                    except MethodError as error:
                        self.failures.append(f"{name} on {job.conditions.task.name}: {error}")
        self.fits.reads = frozenset[int]().union(*(fitter.method.reads(fitter.depth) for fitter in fitters))
        return fitters

    def _add_oracle(self, job: Job, given: str, oracle: Oracle) -> None:
        if job.conditions.task.is_loglikelihood:
            # A log-likelihood is not random, so there are no several full-depth outputs to compare an oracle with.
            self.progress.note(f"{registry.name_of(given)} has no control on log-likelihood tasks: it has no row")
            return
        with naming_method(registry.name_of(given), type(oracle)):
            settings = oracle_settings(oracle, job.engine.backbone.depth, self.spec.seed)
        job.oracles[given] = oracle, [job.conditions.with_key(s) for s in settings]

    def _fitters_of(self, job: Job, given: str, method: Method) -> list[MethodFitter]:
        """A method on a job, once per fit seed; empty where the method has no row."""
        name, depth = registry.name_of(given), job.engine.backbone.depth
        if self.spec.prompt == "routed" and (method.scope == "token" or method.reads(depth)):
            why = "decides per token" if method.scope == "token" else "decides from a prompt at full depth"
            self.progress.note(f"{name} {why}: it has no row under prompt = routed")
            return []
        if lacking := lacks_policy(method, self.spec.kv):
            self.progress.note(f"{name} {lacking}; it has no row")
            return []
        if lacking := lacks_states(method, job.engine.backbone):
            self.progress.note(f"{name} {lacking}; it has no row on {job.engine.backbone.kind}")
            return []
        seeds = range(self.spec.seed, self.spec.seed + (self.spec.fit_seeds if method.learns else 1))
        return [MethodFitter(self.fits, job, given, method, seed) for seed in seeds]

    def fit(self, fitters: Sequence[MethodFitter]) -> None:
        """Make the fits, and give the jobs the settings that come of them; what fails is kept in `failures`."""
        if self.processes > 1:
            self._share_fits(fitters)
        for fitter in fitters:
            try:
                fitter.settle()
            except MethodError as error:
                self.failures.append(f"{fitter.label}: {error}")
        self.fits.release()

    def _share_fits(self, fitters: Sequence[MethodFitter]) -> None:
        """Make fits that no other process has begun until there are none left, then wait for the other processes."""
        units: list[tuple[MethodFitter, Sequence[float | None]]] = []
        for fitter in sorted(fitters, key=lambda one: not one.method.learns):  # the slow ones first
            method = fitter.method
            if method.learns and not method.fits_budget:
                units.append((fitter, fitter.budgets))  # learnt once, then tuned to each budget
            elif method.learns or type(method).at is Method.at:  # a closed form needs no fit
                units += [(fitter, [budget]) for budget in fitter.budgets]
        turns = Turns(self.fits.folder / f".{self.meet(uuid4().hex)}{SCRATCH}")
        for number, (fitter, budgets) in enumerate(units):
            if turns.take(number):
                with contextlib.suppress(MethodError):  # every process will meet it
                    for budget in budgets:
                        fitter.at(budget)
        with self.progress.stage("waiting for the other processes"):
            self.meet("")
        shutil.rmtree(turns.folder, ignore_errors=True)


DEPTHS = range(1, 129)
"""Depths at which a method is asked for a closed form while no backbone is loaded."""


def check_may_fit(spec: RunSpec) -> None:
    """Refuse to fit where no method needs a fit, whatever the backbone: before one is loaded.

    Raises:
        DlbenchError: nothing is learnt, and no knob needs tuning.
    """
    budgets = spec.budgets if isinstance(spec.budgets, tuple) else FIXED
    for given in spec.methods:
        cls = registry.load(given)
        if issubclass(cls, Oracle):
            continue
        for params in variants(cls, spec.settings.get(registry.name_of(given), {})):
            with naming_method(registry.name_of(given), cls):
                method = cls.from_params(params)
            if method.learns or (method.knob is not None and method.tuned and not _is_closed(method, budgets)):
                return
    raise _nothing_to_fit(spec)


def _is_closed(method: Method, budgets: Sequence[float]) -> bool:
    """Whether a method meets budgets in closed form at any depth; False where it does not say so."""
    with contextlib.suppress(Exception):  # it may refuse a depth
        return all(method.at(budget, depth) is not None for budget in budgets for depth in DEPTHS)
    return False


def check_any_fit(spec: RunSpec, fitters: Sequence[MethodFitter]) -> None:
    """Refuse to fit where no method needs a fit.

    Args:
        spec: the run.
        fitters: of its methods.

    Raises:
        DlbenchError: nothing is learnt, and no knob needs tuning.
    """
    if not any(fitter.needs_fit() for fitter in fitters):
        raise _nothing_to_fit(spec)


def _nothing_to_fit(spec: RunSpec) -> DlbenchError:
    named = ", ".join(map(registry.name_of, spec.methods))
    return DlbenchError(f"{named}: nothing to fit: nothing is learnt, no knob needs tuning")


def _derived(engine: Engine) -> tuple[bool, bool]:
    """Sort key that puts what others are compared with before them."""
    backbone = engine.backbone
    return backbone.sha256 != backbone.base_sha256, backbone.dtype == INT8
