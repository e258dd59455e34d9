"""One task: documents out of lm-eval's YAML, scores for what was written or preferred.

lm-eval makes the prompts and few-shot examples, runs its filters, scores and aggregates; dlbench does the generating,
or the weighing of answers, in between. Every score is per document. A metric that exists for a corpus only (its
aggregation is not `mean`) is given by `Task.corpora`; where a task has no other, a document's score is that metric for
a corpus of one.
"""

from __future__ import annotations

import contextlib
import math
import traceback
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from dlbench.data import compatibility, mirrors
from dlbench.data.document import Chat, Document, Split, cut
from dlbench.data.rows import sources as clusters
from dlbench.data.rows.few_shot import Examples
from dlbench.data.scoring.code_hash import scoring_sha256
from dlbench.data.splits import Splits
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.system.seeding import same_draws
from dlbench.terminal.quiet import quiet_data_libraries

__all__ = ["Chat", "Document", "Split", "Task", "cut"]

# lm-eval's own default; fixed, so that few-shot examples are the same in every run.
_FEWSHOT_SEED = 1234


class Task:
    """Documents and how to score what a model makes of them."""

    name: str
    version: str
    metric: str
    """The primary metric, the first of `metrics`."""
    metrics: tuple[str, ...]
    """All metrics that a document gets; `metric@filter` where the task has several filters."""
    max_new_tokens: int
    """0 where answers are weighed, and nothing is written."""
    generator: str | None
    """A function that draws fresh documents to train on, `module.name`, where the YAML's metadata names one. Called
    with (task, "train", count, seed), it gives objects with `id`, `input` (the whole prompt) and `references`."""

    def __init__(self, spec: str, inner: Any, sources: Sources | None = None) -> None:
        """Wrap an lm-eval task.

        Args:
            spec: what `dlbench.data.loader.load_task` was asked for.
            inner: lm-eval's task.
            sources: where it was loaded from.

        Raises:
            DlbenchError: the task is of a kind that dlbench does not run.
        """
        self.name = str(inner.config.task)
        compatibility.check(self.name, inner)
        from lm_eval.api.registry import get_aggregation
        from lm_eval.defaults import DEFAULT_MAX_GEN_TOKS

        self._inner = inner
        self._spec, self._sources = spec, sources or Sources()
        self._splits = Splits(self.name, inner, lambda: self._row_sources)
        self._examples = Examples(inner, self._splits)
        self._corpus_only = [m for m, how in inner.aggregation().items() if how is not get_aggregation("mean")]
        self._filters = [f.name for f in inner._filters]
        each = [m for m in inner.aggregation() if m not in self._corpus_only] or self._corpus_only[:1]
        if not each:
            raise DlbenchError(f"task {self.name!r} names no metric")
        self._keys = {m if len(self._filters) == 1 else f"{m}@{f}": (m, f) for f in self._filters for m in each}
        self.version = str(inner.VERSION)
        self.metrics = tuple(self._keys)
        self.metric = self.metrics[0]
        if not inner.higher_is_better()[each[0]]:
            raise DlbenchError(f"task {self.name!r} is scored by {each[0]!r}, where less is better: give it a score")
        settings = inner.config.generation_kwargs or {}
        limits = [settings[key] for key in ("max_gen_toks", "max_new_tokens", "max_tokens") if key in settings]
        self.max_new_tokens = 0 if self.is_loglikelihood else int(limits[0] if limits else DEFAULT_MAX_GEN_TOKS)
        until = settings.get("until") or []
        self._stop = tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop)
        self._metadata: Mapping[str, Any] = inner.config.metadata or {}
        self.generator = self._metadata.get("generator")

    def __reduce__(self) -> tuple[Any, ...]:
        # What lm-eval made does not always pickle; loading again is quick.
        from dlbench.data.loader import load_task

        return load_task, (self._spec, self._sources)

    @property
    def inner(self) -> Any:
        """lm-eval's task."""
        return self._inner

    @cached_property
    def scoring_sha256(self) -> str:
        """Names how outputs are scored: configuration and code."""
        return scoring_sha256(self._inner, self._tokenizer)

    @property
    def data(self) -> str:
        """Where the documents came from, on one line; empty where they come with the task."""
        if "data" in self._metadata:
            return str(self._metadata["data"])
        hub, dataset = self._inner.config.dataset_path, getattr(self._inner, "dataset", None)
        if not hub or not isinstance(dataset, Mapping):
            return ""
        revision = mirrors.hub_revision(dataset)
        return str(hub) + (f" at revision {revision}" if revision else "")

    @property
    def is_loglikelihood(self) -> bool:
        """Whether given answers are weighed by their likelihood; otherwise the model writes."""
        return str(self._inner.OUTPUT_TYPE) != "generate_until"

    @property
    def wants_chat(self) -> bool:
        """Whether the task says that its prompts belong into a model's chat template."""
        return bool(self._metadata.get("chat", False))

    @property
    def fit_split(self) -> str:
        """What methods are fitted on: the name of a split, or that a fifth of the scored one is set apart."""
        with quiet_data_libraries():
            return self._splits.fit

    @property
    def fit_overlap(self) -> int:
        """Documents that methods would have been fitted on, had they not been scored too."""
        with quiet_data_libraries():
            return self._splits.overlap

    def signature(self, documents: Sequence[Document]) -> str:
        """How the metrics of these documents are computed, on one line."""
        with compatibility.parted_by(self._tokenizer):
            return compatibility.signature(self._inner, self.metrics, [d.references for d in documents])

    def documents(
        self, split: Split, limit: int | None = None, chat: Chat | None = None, *, whole: bool = False
    ) -> list[Document]:
        """The first documents of a split, in a fixed order.

        Args:
            split: `test` to be scored, `fit` for calibration and training of methods.
            limit: how many; None for all.
            chat: puts prompts into a model's chat template; None leaves them as they are.
            whole: all of a large fit split, for training a backbone; methods need no more than `FIT_DOCUMENTS`.

        Raises:
            DlbenchError: there is nothing to fit on, or no prompt can be made of a document.
        """
        with quiet_data_libraries():
            places = self._splits.places(split, whole=whole)[:limit]
            rows, ids = self._splits.rows(split), self._splits.ids(split)
        shots = self._inner.config.num_fewshot or 0
        # Examples are drawn in the order of the rows, as lm-eval does: the draw starts anew for every call, and what is
        # set apart from the scored split has its draw too.
        self._inner.set_fewshot_seed(_FEWSHOT_SEED)
        wanted, last = set(places), max(places, default=-1)
        found = []
        for index in range(last + 1) if shots and split == "test" else places:
            try:
                with self._examples.drawn_for(rows[index], split) if shots else contextlib.nullcontext():
                    context = self._context(rows[index], shots, chat)
            except Exception as error:
                text = " ".join(f"{type(error).__name__}: {error}".split())
                raise DlbenchError(f"task {self.name!r}: no prompt for document {ids[index]!r}: {text}") from error
            if index in wanted:
                document = self._document(rows[index], context, ids[index], index, split, chat)
                document.check()
                found.append(document)
        return found

    def score(self, document: Document, output: str) -> dict[str, float]:
        """All metrics of one output, the primary one first."""
        values = self._values(self._row(document), output, document)
        return {key: self._number(key, values[key], document) for key in self.metrics}

    def judge(self, document: Document, text: str) -> float:
        """The primary metric of a text, with the task's filter or without, whichever is better.

        A filter may look for an answer within a longer text, which a reference by itself is not.
        """
        doc, (metric, _) = self._row(document), self._keys[self.metric]
        found = self._values(doc, text, document)[self.metric], self._results(doc, [text])[metric]
        return max(self._number(self.metric, value, document) for value in found)

    def weigh(self, document: Document, answers: Sequence[tuple[float, bool]]) -> dict[str, float]:
        """All metrics of a document whose answers were weighed, the primary one first.

        Args:
            document: has `pairs`.
            answers: for each of them the log-likelihood of the continuation, and whether it is what greedy decoding
                would write.
        """
        doc = self._row(document)
        made = self._inner.construct_requests(doc=doc, ctx=self._contexts(document), metadata=(self.name, 0, 1))
        instances = made if isinstance(made, list) else [made]
        for instance, answer in zip(instances, answers, strict=True):
            instance.resps = [answer]
        self._inner._instances = instances
        self._inner.apply_filters()
        results = {f: self._results(doc, [i.filtered_resps[f] for i in instances]) for f in self._filters}
        return {key: self._number(key, results[kept][metric], document) for key, (metric, kept) in self._keys.items()}

    def corpus(self, documents: Sequence[Document], outputs: Sequence[str]) -> float | None:
        """The task's first corpus metric over all outputs; None where it has none."""
        return next(iter(self.corpora(documents, outputs).values()), None)

    def corpora(self, documents: Sequence[Document], outputs: Sequence[str]) -> dict[str, float]:
        """All of the task's corpus metrics over all outputs; none where answers are weighed."""
        if not self._corpus_only or not documents or self.is_loglikelihood:
            return {}
        kept, found = self._filters[0], []
        for document, output in zip(documents, outputs, strict=True):
            doc = self._row(document)
            found.append(self._results(doc, [self._filtered(doc, output, document)[kept]]))
        return {metric: self._aggregate(metric, [values[metric] for values in found]) for metric in self._corpus_only}

    def choose_references(self, document: Document, output: str, indices: Sequence[int]) -> float:
        """The primary metric of an output against some of the document's references.

        Args:
            document: a document with several references.
            output: what was written.
            indices: which references count.

        Raises:
            ValueError: no index, or a task whose references cannot be told apart.
        """
        field = self._inner.config.doc_to_target
        doc = self._row(document)
        if not indices or len(document.references) < 2 or not isinstance(field, str) or field not in doc:
            raise ValueError(f"document {document.id!r} of task {self.name!r} has no references to choose from")
        fewer = {**doc, field: [document.references[index] for index in indices]}
        return self._number(self.metric, self._values(fewer, output, document)[self.metric], document)

    # ---- documents

    def _context(self, doc: Mapping[str, Any], shots: int, chat: Chat | None) -> str | list[str]:
        """The prompt; one per answer where the answers stand in it."""
        more = (
            {} if chat is None else {"apply_chat_template": True, "chat_template": chat, "fewshot_as_multiturn": True}
        )
        made = self._inner.fewshot_context(doc, num_fewshot=shots, gen_prefix=self._inner.doc_to_prefix(doc), **more)
        return made  # type: ignore[no-any-return]

    def _document(
        self, doc: Mapping[str, Any], context: str | list[str], id_: str, index: int, split: Split, chat: Chat | None
    ) -> Document:
        if self.is_loglikelihood:
            return self._question(doc, context, id_, index, split, chat)
        assert isinstance(context, str)
        return Document(
            id=id_,
            prompt=context,
            references=self._references(doc),
            limit=self.max_new_tokens,
            stop=self._stop,
            index=index,
            difficulty=int(doc["difficulty"]) if "difficulty" in doc else None,
            split=split,
            delimiter=str(self._inner.config.target_delimiter) if chat is None else "",
            prompt_tokens=self._metadata.get("prompt_tokens"),
            body=self._body(doc, context),
            line=doc.get(mirrors.LINE),
            source=self._source(index, split),
        )

    def _body(self, doc: Mapping[str, Any], prompt: str) -> tuple[int, int] | None:
        """Where the document's text stands in the prompt, if the task lets that lose its end."""
        if self._metadata.get("cut") != "input":
            return None
        start = prompt.rfind(doc["input"])
        return (start, start + len(doc["input"])) if start >= 0 else None

    def _question(
        self, doc: Mapping[str, Any], context: str | list[str], id_: str, index: int, split: Split, chat: Chat | None
    ) -> Document:
        """A document whose answers are weighed."""
        inner = self._inner
        more = {} if chat is None else {"apply_chat_template": True, "chat_template": chat}
        made = inner.construct_requests(doc=doc, ctx=context, metadata=(self.name, index, 1), **more)
        pairs = tuple((str(i.args[0]), str(i.args[1])) for i in (made if isinstance(made, list) else [made]))
        gold, chance = 0, 0.0
        if inner.OUTPUT_TYPE == "multiple_choice":
            choices = inner.doc_to_choice(doc)
            target = inner.doc_to_text(doc) if inner.multiple_input else inner.doc_to_target(doc)
            several = target if isinstance(target, list) else [target]
            gold = choices.index(several[0]) if isinstance(several[0], str) else int(several[0])
            chance = len(several) / len(choices)
        prompt, continuation = pairs[gold]
        delimiter = continuation[: len(continuation) - len(continuation.lstrip())]
        return Document(
            id=id_, prompt=prompt, references=(continuation.strip(),), limit=1, stop=(), index=index, difficulty=None,
            split=split, pairs=pairs, chance=chance, delimiter=delimiter, source=self._source(index, split),
        )  # fmt: skip

    def _source(self, index: int, split: Split) -> str | None:
        """What a scored document was taken from, hashed; of what is fitted on nobody asks."""
        return self._row_sources[index] if split == "test" else None

    @cached_property
    def _row_sources(self) -> list[str | None]:
        """The source of every row of the scored split: what repeats a question anywhere in it is of one."""
        dataset = self._inner.config.dataset_path or getattr(self._inner, "DATASET_PATH", None)
        named = self._metadata.get("source")
        own = [clusters.source(row, named, dataset, self.name) for row in self._splits.rows("test")]
        return clusters.merged(own, self._splits.asked)

    def _contexts(self, document: Document) -> str | list[str]:
        """The context as lm-eval made it; of one text, or one per answer."""
        contexts = [context for context, _ in document.pairs]
        return contexts if self._inner.multiple_input else contexts[0]

    def _row(self, document: Document) -> Mapping[str, Any]:
        return self._splits.rows(document.split)[document.index]  # type: ignore[no-any-return]

    def _references(self, doc: Mapping[str, Any]) -> tuple[str, ...]:
        target = self._inner.doc_to_target(doc)
        choices = self._inner.doc_to_choice(doc) if self._inner.config.doc_to_choice is not None else None
        targets = target if isinstance(target, list | tuple) else [target]
        return tuple(str(choices[t] if choices is not None and isinstance(t, int) else t) for t in targets)

    # ---- scores

    def _values(self, doc: Mapping[str, Any], output: str, document: Document) -> dict[str, Any]:
        texts = self._filtered(doc, output, document)
        results = {name: self._results(doc, [text]) for name, text in texts.items()}
        return {key: results[kept][metric] for key, (metric, kept) in self._keys.items()}

    def _filtered(self, doc: Mapping[str, Any], output: str, document: Document) -> dict[str, Any]:
        """Put the answer in an output through each of the task's filters."""
        instance = self._inner.construct_requests(doc=doc, ctx="", metadata=(self.name, document.index, 1))
        instance.resps = [document.answer(output)]
        self._inner._instances = [instance]
        self._inner.apply_filters()
        return dict(instance.filtered_resps)

    def _results(self, doc: Mapping[str, Any], answers: Sequence[Any]) -> dict[str, Any]:
        try:
            with compatibility.parted_by(self._tokenizer), same_draws(zlib.crc32(repr(answers).encode())):
                results = dict(self._inner.process_results(doc, answers))
        except Exception as error:
            *_, last = traceback.extract_tb(error.__traceback__)
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise DlbenchError(
                f"task {self.name!r}: its scoring fails: {text} ({last.filename}, line {last.lineno})"
            ) from error
        if missing := [metric for metric in self._inner.aggregation() if metric not in results]:
            raise DlbenchError(
                f"task {self.name!r} declares the metric {missing[0]!r}, but its scoring does not give it"
            )
        return results

    @cached_property
    def _tokenizer(self) -> str | None:
        """What BLEU parts texts by: one for the task, whatever documents a run takes; None where a task has its own."""
        with quiet_data_libraries():
            return compatibility.tokenizer(self._inner, map(self._references, self._splits.rows("test")))

    def _aggregate(self, metric: str, values: Sequence[Any]) -> float:
        with compatibility.parted_by(self._tokenizer), same_draws():
            return float(self._inner.aggregation()[metric](values))

    def _number(self, key: str, value: Any, document: Document) -> float:
        if self._keys[key][0] in self._corpus_only:
            value = self._aggregate(self._keys[key][0], [value])
        number = float(value)
        if not math.isfinite(number):
            raise DlbenchError(f"task {self.name!r}: {key} of document {document.id!r} is {number}")
        return number
