"""Decide what runs where: backbones, tasks, settings and their fits."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import get_args
from uuid import uuid4

from dlbench.data.loader import load_task
from dlbench.data.splits import sample
from dlbench.data.task import Document, Task
from dlbench.data.thinking import Thinking, marked
from dlbench.data.thinking import choose as choose_thinking
from dlbench.engine import Engine
from dlbench.errors import DlbenchError
from dlbench.evaluation import settings as plan
from dlbench.evaluation.reference_check import complaints
from dlbench.evaluation.settings import Place, Setting
from dlbench.fit import Readings
from dlbench.method import Method, Oracle
from dlbench.method.base import Scope
from dlbench.models.backbone import EMBEDDED, Backbone, load, plain_dtype
from dlbench.prompting.chat_template import ChatTemplate
from dlbench.prompting.chat_template import choose as choose_template
from dlbench.prompting.tokenize import Prompted, tokenise, waves
from dlbench.registry import methods as registry
from dlbench.run.config import RunSpec, lacks_policy
from dlbench.run.method_fitter import Learner, blaming
from dlbench.system.device_memory import most_rows, most_slots
from dlbench.system.processes import Turns
from dlbench.terminal.progress import Progress


@dataclasses.dataclass
class Job:
    """One task on one backbone, with everything that will run there."""

    place: Place
    engine: Engine
    documents: list[Document]
    batches: list[list[Prompted]]
    slots: int
    """Most rows decoded together."""
    base: Job | None = None
    """The same task on the base backbone; None where this is it."""
    settings: list[Setting] = dataclasses.field(default_factory=list)
    oracles: dict[str, tuple[Oracle, list[Setting]]] = dataclasses.field(default_factory=dict)
    artifacts: dict[str, Path] = dataclasses.field(default_factory=dict)
    """Content key → folder of the fit."""
    chat: ChatTemplate | None = None
    """The model's chat template, where prompts go into one."""
    thinking: Thinking | None = None
    """How the model thinks before it answers."""

    @cached_property
    def fit_documents(self) -> tuple[list[Document], str]:
        """The fit split and its hash: read once, however many settings are fitted."""
        documents = marked(self.place.task.documents("fit", chat=self.chat), self.thinking)
        return documents, plan.documents_sha256(documents)

    @property
    def plain(self) -> Job:
        """The same model before it was quantised, where it is: what is learnt and tuned is learnt on that."""
        base = self.base
        same = base is not None and base.engine.backbone.source == self.engine.backbone.source
        return base if base is not None and same else self

    @property
    def everything(self) -> list[Setting]:
        """Every setting once, by content key."""
        candidates = [s for _, several in self.oracles.values() for s in several]
        return list({s.key: s for s in [*self.settings, *candidates]}.values())


class Planner:
    """Makes the jobs of a run. The processes of a run share out what must be fitted, and wait for each other."""

    def __init__(
        self, spec: RunSpec, device: str, progress: Progress, processes: int, meet: Callable[[str], str]
    ) -> None:
        """Prepare.

        Args:
            spec: the run.
            device: the torch device of this process.
            progress: shows the fits.
            processes: how many share the documents and the fits.
            meet: returns when all processes have called it, with what the first of them gave.
        """
        self.spec, self.device, self.progress = spec, device, progress
        self.processes, self.meet = processes, meet
        self.fits = spec.out / "fits"
        self.started = time.time()
        self._read: tuple[Job, Readings] | None = None
        self._told: set[str] = set()
        """Lines about the models' generation_config."""
        self._complained: dict[str, tuple[str, ...]] = {}

    def load(self) -> list[Job]:
        """Load backbones and tasks and check every method against every depth; nothing is written yet.

        Raises:
            DlbenchError: a model, a task or a method cannot be had, or a parameter does not fit.
        """
        engines = [self._engine(name, dtype) for name, dtype in self._backbones()]
        bases_first = sorted(engines, key=lambda e: e.backbone.sha256 != e.backbone.base_sha256)
        for engine in bases_first:
            self._methods(engine.backbone.depth)
        jobs: list[Job] = []
        for name in self.spec.tasks:
            task = load_task(name, self.spec.sources)
            self._tell_overlap(task)
            bases: dict[str, Job] = {}
            for engine in bases_first:
                job = self._job(engine, task)
                job.base = bases.get(engine.backbone.base_sha256)
                bases.setdefault(engine.backbone.sha256, job)
                jobs.append(job)
        return jobs

    def _engine(self, name: str, dtype: str) -> Engine:
        backbone = load(name, device=self.device, dtype=dtype, **self.spec.loading)
        # Weights that are elsewhere until their layer is called cannot be fused.
        return Engine(backbone, kernels="stock" if backbone.spread else self.spec.kernels)

    def _job(self, engine: Engine, task: Task) -> Job:
        """A task on a backbone, nothing settled yet."""
        backbone = engine.backbone
        if not task.is_loglikelihood:
            self._tell_wishes(engine)
        chat = choose_template(backbone.name, backbone.tokenizer, task.wants_chat, self.spec.chat_template)
        thinking = None
        if not task.is_loglikelihood:
            thinking = choose_thinking(self.spec.think_end_token, backbone.tokenizer, chat)
        if thinking is not None:
            self._tell_thinking(task, backbone, thinking)
        everything = marked(task.documents("test", chat=chat), thinking)
        documents = self._chosen(everything)
        prompted = tokenise(engine, documents)
        self._tell_cuts(task, backbone, prompted)
        self._tell_turns(task, engine, prompted)
        place = Place(
            backbone,
            task,
            plan.documents_sha256(everything),
            self.spec,
            with_bos=sum(p.with_bos for p in prompted),
            chat_sha256=None if chat is None else chat.sha256,
            of=len(everything),
            fit_overlap=task.fit_overlap,
            notes=self._complaints(task, documents),
        )
        slots = self.spec.batch_size or most_slots(backbone.device.type)
        batches = waves(prompted, most_rows(slots, len(documents), self.processes), self.processes)
        return Job(place, engine, documents, batches, slots, chat=chat, thinking=thinking)

    def _tell_thinking(self, task: Task, backbone: Backbone, thinking: Thinking) -> None:
        self.progress.note(
            f"{task.name} on {backbone.name}: what is written up to {thinking.end} is not scored, but it counts among "
            f"the {task.max_new_tokens:,} new tokens; --think-end-token off scores all"
        )

    def _chosen(self, everything: list[Document]) -> list[Document]:
        """The documents that the run takes, in the task's order."""
        limit = self.spec.limit
        if limit is None or self.spec.limit_first:
            return everything[:limit]
        return [everything[place] for place in sample([d.id for d in everything], limit)]

    def _tell_overlap(self, task: Task) -> None:
        """Say how many documents methods are not fitted on, since they are scored."""
        if task.fit_overlap:
            self.progress.note(
                f"{task.name}: {task.fit_overlap:,} documents that methods would be fitted on are scored too, and "
                f"left out; fitted on: {task.fit_split}"
            )

    def _tell_wishes(self, engine: Engine) -> None:
        """Say what the model's generation_config asks for, once.

        Raises:
            DlbenchError: it asks for what is not done.
        """
        engine.check_generation_config()
        line = engine.wishes.told(engine.backbone.name)
        if line and line not in self._told:
            self.progress.note(line)
        self._told.add(line)

    def _complaints(self, task: Task, documents: Sequence[Document]) -> tuple[str, ...]:
        """What is wrong with a task's metric; told once, and in every record."""
        if task.name not in self._complained:
            self._complained[task.name] = complaints(task, documents)
            for line in self._complained[task.name]:
                self.progress.note(f"{task.name}: {line}")
        return self._complained[task.name]

    def _tell_cuts(self, task: Task, backbone: Backbone, prompted: Sequence[Prompted]) -> None:
        """Say how many prompts are cut.

        Raises:
            DlbenchError: some do not fit the context, and the run is an official one.
        """
        over, cut = sum(p.overflowed for p in prompted), sum(p.truncated for p in prompted)
        where, count = f"{task.name} on {backbone.name}", len(prompted)
        lost = "the end of their text" if any(p.document.body for p in prompted) else "their beginning"
        if over and self.spec.official:
            raise DlbenchError(
                f"{where}: {over} of {count} prompts do not fit the context of {backbone.context} tokens, and an "
                "official run cuts none: take a model with a longer context, or another task"
            )
        if over:
            self.progress.note(
                f"{where}: {over} of {count} prompts do not fit the context of {backbone.context} tokens; "
                f"they lose {lost}"
            )
        if cut > over:
            self.progress.note(f"{where}: {cut - over} of {count} prompts lose {lost} to the limit that the task sets")

    def _tell_turns(self, task: Task, engine: Engine, prompted: Sequence[Prompted]) -> None:
        """Say how many texts may be read again while they are written."""
        count = 0 if task.is_loglikelihood else engine.may_be_reread([p.request for p in prompted])
        if count:
            self.progress.note(
                f"{task.name} on {engine.backbone.name}: {count} of {len(prompted)} texts may outgrow the original "
                f"context of {engine.reread_after} tokens; those that do are read again there, as by generate, and pay "
                "for it"
            )

    def _backbones(self) -> list[tuple[str, str]]:
        """Name and dtype of what runs: the models asked for, and what stands beside them at its full depth.

        That is the model itself where it was asked for in int8, which quality is held against; and the smaller dense
        model of the same training, which every method must be held against.
        """
        asked = self.spec.models
        plain = plain_dtype(self.spec.dtype, self.device)
        beside = [n for name in asked for n, base in EMBEDDED.items() if base == name and n not in asked]
        found = [(name, self.spec.dtype) for name in asked] + [(name, plain) for name in (*asked, *beside)]
        return list(dict.fromkeys(found))

    def settle(self, jobs: Sequence[Job]) -> None:
        """Give every job its settings, fitting what must be fitted.

        Raises:
            DlbenchError: a method fails, or refuses a budget.
        """
        learners: list[Learner] = []
        for job in jobs:
            job.settings.append(job.place.with_key(Setting("full", "full", plan.full(), None, self.spec.seed)))
            backbone = job.engine.backbone
            if backbone.source not in self.spec.models or backbone.dtype != self.spec.dtype:
                continue  # it stands beside the others at its full depth
            for given, made in self._methods(backbone.depth):
                if isinstance(made, Oracle):
                    self._add_oracle(job, given, made)
                elif registry.name_of(given) != "full":
                    learners += self._learners(job, given, made)
        if self.processes > 1:
            self._share_fits(learners)
        for learner in learners:
            learner.settle()
        self._read = None

    def _share_fits(self, learners: Sequence[Learner]) -> None:
        """Make fits that nobody else has begun, until there are none left, and wait for the others."""
        units: list[tuple[Learner, Sequence[float | None]]] = []
        for learner in sorted(learners, key=lambda one: not one.method.learns):  # those that take long are dealt first
            method = learner.method
            if method.learns and not method.fits_budget:
                units.append((learner, learner.budgets))  # learnt once, then tuned to each
            elif method.learns or type(method).at is Method.at:  # what has a closed form needs no fit
                units += [(learner, [budget]) for budget in learner.budgets]
        turns = Turns(self.fits / f".{self.meet(uuid4().hex)}")
        for number, (learner, budgets) in enumerate(units):
            if turns.take(number):
                for budget in budgets:
                    learner.at(budget)
        with self.progress.stage("waiting for the other processes"):
            self.meet("")
        shutil.rmtree(turns.folder, ignore_errors=True)

    def readings(self, job: Job) -> Readings:
        """What fits on a job have read; that of the job before is let go."""
        if self._read is None or self._read[0] is not job:
            self._read = job, Readings()
        return self._read[1]

    def _methods(self, depth: int) -> list[tuple[str, Method | Oracle]]:
        """Every method of the run, as given, with its parameters, checked against a depth."""
        found: list[tuple[str, Method | Oracle]] = []
        for given in self.spec.methods:
            name = registry.name_of(given)
            cls = registry.load(given)
            for params in plan.variants(cls, self.spec.settings.get(name, {})):
                with blaming(name, (Exception,)):
                    made = cls.from_params(params)
                    made.validate(depth)
                    if isinstance(made, Method) and made.scope not in get_args(Scope):
                        raise ValueError(f"scope {made.scope!r} is none of {', '.join(get_args(Scope))}")
                found.append((given, made))
        return found

    def _add_oracle(self, job: Job, given: str, oracle: Oracle) -> None:
        if job.place.task.is_loglikelihood:
            # A likelihood has no noise to draw several full-depth outputs by, which an oracle must be held against.
            self.progress.note(f"{registry.name_of(given)} has no control where answers are weighed: it has no row")
            return
        with blaming(registry.name_of(given)):
            settings = plan.oracle_settings(oracle, job.engine.backbone.depth, self.spec.seed)
        job.oracles[given] = oracle, [job.place.with_key(s) for s in settings]

    def _learners(self, job: Job, given: str, method: Method) -> list[Learner]:
        """A method's seeds on a job; none where it has no row."""
        name, depth = registry.name_of(given), job.engine.backbone.depth
        if self.spec.prompt == "routed" and (method.scope == "token" or method.reads(depth)):
            why = "decides per token" if method.scope == "token" else "decides from a prompt at full depth"
            self.progress.note(f"{name} {why}: it has no row under prompt = routed")
            return []
        if lacking := lacks_policy(method, self.spec.kv):
            self.progress.note(f"{name} {lacking}; it has no row")
            return []
        seeds = range(self.spec.seed, self.spec.seed + (self.spec.fit_seeds if method.learns else 1))
        return [Learner(self, job, given, method, seed) for seed in seeds]
