"""Verify a submission: decode some of its documents again, and hold text, routes, FLOPs and length against the claim.

Where this machine is of the kind that was timed, rows are timed again too, and their ratio to full depth is compared.

This runs the submitted code. Do it where nothing can be lost: in a job or container without secrets.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dlbench.audit.isolated.case import Case
from dlbench.audit.isolated.start import audit
from dlbench.data.document import Document
from dlbench.engine import Engine
from dlbench.engine.requests import near_tie_below
from dlbench.errors import DlbenchError
from dlbench.evaluation.generation import QualityRun
from dlbench.evaluation.settings import Setting, source_sha256
from dlbench.fit.artifacts import load_artifact
from dlbench.method import Method
from dlbench.models.batch_size import most_slots
from dlbench.models.catalog import resolve_device
from dlbench.models.loading import load
from dlbench.prompting.batching import waves
from dlbench.prompting.chat_template import choose as choose_template
from dlbench.prompting.tokenize import tokenise
from dlbench.records.run_folder import Store
from dlbench.records.schema import Record, Sample, Trust
from dlbench.registry import methods as registry
from dlbench.submission.badge import Badge, RowCheck, TimeCheck, badge
from dlbench.submission.checks.rows import row_name
from dlbench.submission.contents import Submission, TrackDocuments
from dlbench.submission.packing import layer_costs
from dlbench.submission.sample_diff import NEAR_TIES, TIE, compare
from dlbench.submission.time_check import TimeChecks


@dataclass
class Verification:
    """Decodes documents of a valid submission again.

    Attributes:
        submission: without faults.
        documents: how many of each row.
        nonce: a word that the draw depends on, chosen after the submission.
        models: names or folders to look for its backbones in; none: by their names in the records.
        device: torch's name of the device.
        batch_size: documents decoded together; None: as many as fit.
        timing: whether rows are also timed again, where this machine is of the kind that the submission names.
        note: prints a line for people.
        data_dir: folder that prefetched models are looked for in, before the default one.
    """

    submission: Submission
    documents: int
    nonce: str = ""
    models: Sequence[str] = ()
    device: str = "auto"
    batch_size: int | None = None
    timing: bool = True
    note: Callable[[str], None] = lambda line: None
    data_dir: str | None = None
    _engines: dict[tuple[str, str], Engine] = field(default_factory=dict)

    def run(self) -> tuple[RowCheck, ...]:
        """Decode, and return the result of each row.

        Raises:
            DlbenchError: an audit finds something, a backbone cannot be found, or the code of a method fails.
        """
        self._audit()
        records = self.submission.records
        checks: list[RowCheck] = []
        groups = dict.fromkeys((r.track, r.backbone.sha256, r.backbone.dtype) for r in records)
        for track, sha256, dtype in groups:
            rows = [r for r in records if (r.track, r.backbone.sha256, r.backbone.dtype) == (track, sha256, dtype)]
            own = self.submission.track(track)
            assert own is not None  # validated
            self.note(f"{own.task.name} on {rows[0].backbone.name}: {len(rows)} rows")
            checks += self._rows(rows, own)
        return tuple(self._timed(checks) if self.timing else checks)

    def _timed(self, checks: Sequence[RowCheck]) -> Iterator[RowCheck]:
        """The results with times, which are taken when all is decoded."""
        again = TimeChecks(self.submission, self._engine, self._setting, self.note)
        found: dict[str, tuple[TimeCheck, ...]] = {}
        for track in dict.fromkeys(r.track for r in self.submission.records):
            own = self.submission.track(track)
            assert own is not None  # validated
            found |= again.of_track(track, own)
        return (check.model_copy(update={"times": found.get(check.key, ())}) for check in checks)

    def _audit(self) -> None:
        """Audit the submitted methods on a tiny model, each once with the parameters of a row.

        Raises:
            DlbenchError: something was found; see docs/audits.md.
        """
        cases = {
            r.method.name: Case(r.method.name, dict(r.method.params), packed)
            for r in self.submission.records
            if (packed := self._packed(r.method.name)) is not None
        }
        found = []
        for one in audit(list(cases.values())):
            lines = [finding.line for finding in one.findings] or ["nothing found"]
            for line in lines:
                self.note(f"audit of {one.given}: {line}")
            if one.findings or one.oracle:  # oracles are no part of a submission
                found.append(f"{one.given} ({', '.join(f.kind for f in one.findings) or 'an oracle'})")
        if found:
            raise DlbenchError(f"the audit found something, docs/audits.md says what it means: {', '.join(found)}")

    def _packed(self, name: str) -> tuple[str, str, str | None] | None:
        """Folder, path below it, and class of a method that comes with its source; None for a built-in one."""
        code = self.submission.manifest.code[name]
        if code.origin == "built-in":
            return None
        root = (self.submission.folder / "code" / name).resolve()
        return str(root), code.entry.removeprefix(f"code/{name}/"), code.class_name

    def badge(self, checks: Sequence[RowCheck], who: str, *, maintainer: bool) -> Badge:
        """Return the badge that the results earn: none of a row's documents may differ.

        Args:
            checks: of all rows.
            who: who verifies.
            maintainer: whether that is a maintainer of the board, not somebody else.
        """
        trust: Trust = "validated"
        if reproduced(checks):
            trust = "rerun" if maintainer else "reproduced"
        device = str(next(iter(self._engines.values())).backbone.device) if self._engines else "cpu"
        seal = self.submission.manifest.seal
        return badge(seal, trust, who, device, documents=self.documents, nonce=self.nonce, rows=tuple(checks))

    def _rows(self, records: Sequence[Record], own: TrackDocuments) -> list[RowCheck]:
        engine = self._engine(records[0])
        drawn = self._drawn(records[0].track, own, engine)
        prompted = tokenise(engine, drawn)
        slots = self.batch_size or most_slots(engine.backbone.device.type)
        settings = {r.key: self._setting(r, engine) for r in records}
        policies = {id(settings[r.key].method): r.run.kv for r in records}
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            store.samples_dir.mkdir()
            run = QualityRun(
                engine,
                own.task,
                store,
                records[0].run.prompt == "routed",
                lambda method: policies[id(method)],
                slots=slots,
                auto=self.batch_size is None,
                note=self.note,
            )
            run.run(waves(prompted, slots), list(settings.values()), lambda done: None)
            for failure in run.failed.values():  # a row of which some texts are missing is not reproduced by the others
                raise failure
            again = {key: store.samples(key) for key in settings}
        return [self._check(r, own, again[r.key].values()) for r in records]

    def _drawn(self, track: str, own: TrackDocuments, engine: Engine) -> list[Document]:
        """The documents of a track that the submission's seal and the nonce draw, with this model's own prompts."""
        seal = self.submission.manifest.seal

        def place(document: Document) -> str:
            return hashlib.sha256(f"{seal} {self.nonce} {track} {document.id}".encode()).hexdigest()

        drawn = sorted(own.documents, key=place)[: self.documents]
        if self.submission.manifest.tracks[track].chat:
            chat = choose_template(engine.backbone.name, engine.backbone.tokenizer, own.task.wants_chat, "auto")
            prompts = {d.id: d.prompt for d in own.task.documents("test", chat=chat)}
            for document in drawn:
                if prompts[document.id] != document.prompt:
                    raise DlbenchError(f"document {document.id!r}: its prompt is not what the model's template makes")
        return drawn

    def _engine(self, record: Record) -> Engine:
        """The backbone of a row, loaded once.

        Raises:
            DlbenchError: no model has its hash, or the model costs something else than the submission says.
        """
        info = record.backbone
        if (info.sha256, info.dtype) not in self._engines:
            names = self.models or [info.name]
            for name in names:
                backbone = load(name, device=resolve_device(self.device), dtype=info.dtype, data_dir=self.data_dir)
                backbone.guard_weights()
                if backbone.sha256 == info.sha256:
                    break
            else:
                raise DlbenchError(f"none of {', '.join(names)} is {info.name} of the submission: name it by --model")
            weights = self.submission.manifest.rows[record.key].content.get("weights")
            if weights != backbone.weights_sha256:
                raise DlbenchError(f"{info.name}: its weights in memory are not those of the submission")
            engine = Engine(backbone)
            if layer_costs(engine.costs) != self.submission.manifest.costs[info.sha256]:
                raise DlbenchError(f"{info.name}: its layers cost something else than the submission says")
            self._engines[info.sha256, info.dtype] = engine
        return self._engines[info.sha256, info.dtype]

    def _setting(self, record: Record, engine: Engine) -> Setting:
        row = self.submission.manifest.rows[record.key]
        method = self._method(record)
        if row.content["method"][1] != method_params(method):  # type: ignore[index]
            raise DlbenchError(f"{row_name(record)}: its parameters are not those of the method that is built of them")
        method.validate(engine.backbone.depth)
        return Setting(
            record.method.name, record.method.name, method, record.run.budget, record.run.seed, key=record.key
        )

    def _method(self, record: Record) -> Method:
        """The method of a row: dlbench's own code where it is built in, else the packed code."""
        row = self.submission.manifest.rows[record.key]
        if (packed := self._packed(row.method)) is None:
            if source_sha256(row.method) != record.method.source_sha256:
                raise DlbenchError(
                    f"{row.method}: this dlbench has another version of it; verify with dlbench "
                    f"{self.submission.manifest.dlbench}"
                )
            cls = registry.load(row.method)
        else:
            root, entry, class_name = packed
            cls = registry.load_packed(row.method, Path(root), entry, class_name)
        if not issubclass(cls, Method):
            raise DlbenchError(f"{row.method} is an oracle, which is no part of a submission")
        if row.fit is not None:
            return load_artifact(self.submission.folder / row.fit, cls)[0]
        try:
            return cls.from_params(dict(record.method.params))
        except (ValueError, TypeError) as error:
            raise DlbenchError(f"{row_name(record)}: its parameters are refused: {error}") from error

    def _check(self, record: Record, own: TrackDocuments, again: Iterable[Sample]) -> RowCheck:
        claimed = {s.id: s for s in self.submission.samples(record.key)}
        dtype = record.backbone.dtype
        tie = TIE if dtype == "float32" else near_tie_below(dtype)
        results = {s.id: compare(claimed[s.id], s, tie) for s in again}
        differing = [(id_, how[:500]) for id_, how in results.items() if how not in ("same", "near tie")]
        return RowCheck(
            key=record.key,
            method=record.method.name,
            task=own.task.name,
            documents=len(results),
            same=sum(how == "same" for how in results.values()),
            near_ties=sum(how == "near tie" for how in results.values()),
            differing=tuple(differing),
        )


def method_params(method: Method) -> object:
    """The parameters of a method as JSON has them."""
    return json.loads(json.dumps(method.params()))


def reproduced(checks: Sequence[RowCheck]) -> bool:
    """Whether every row agrees: no document differs, few do so at near ties, and no time is far off."""
    return bool(checks) and all(
        check.documents
        and not check.differing
        and check.near_ties <= max(1, NEAR_TIES * check.documents)
        and not any(time.far_off for time in check.times)
        for check in checks
    )
