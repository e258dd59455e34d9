"""One generation task: documents out of lm-eval's YAML, scores for what was written.

lm-eval makes the prompts and few-shot examples, runs its filters, scores and aggregates; dlbench does the generating in
between. Every score is per document. A metric that exists for a corpus only (its aggregation is not `mean`) is given by
`Task.corpus`; where a task has no other, a document's score is that metric for a corpus of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dlbench.errors import DlbenchError

Split = Literal["test", "fit"]
# lm-eval's own default; fixed, so that few-shot examples are the same in every run.
_FEWSHOT_SEED = 1234


@dataclass(frozen=True)
class Document:
    """One prompt, what may answer it, and when to stop."""

    id: str
    """Unique within the task and split."""
    prompt: str
    references: tuple[str, ...]
    limit: int
    """Most new tokens."""
    stop: tuple[str, ...]
    """Texts that end the output; they are no part of it."""
    index: int
    """Place within the split."""
    difficulty: int | None
    split: Split = "test"


class Task:
    """A generation task: documents and how to score an output."""

    name: str
    version: str
    metric: str
    """The primary metric, the first of `metrics`."""
    metrics: tuple[str, ...]
    """All metrics that a document gets; `metric@filter` where the task has several filters."""
    max_new_tokens: int
    generator: str | None
    """A function that draws fresh documents to train on, `module.name`, where the YAML's metadata names one. Called
    with (task, "train", count, seed), it gives objects with `id`, `input` (the whole prompt) and `references`."""

    def __init__(self, spec: str, inner: Any) -> None:
        """Wrap an lm-eval task.

        Args:
            spec: what `dlbench.harness.load_task` was asked for.
            inner: lm-eval's task.

        Raises:
            DlbenchError: the task is of a kind that dlbench does not run.
        """
        name = str(inner.config.task)
        if inner.OUTPUT_TYPE != "generate_until":
            raise DlbenchError(
                f"task {name!r} is a {inner.OUTPUT_TYPE} task: dlbench runs tasks that generate text (generate_until)"
            )
        if getattr(inner, "UNSAFE_CODE", False) or getattr(inner, "MULTIMODAL", False):
            raise DlbenchError(f"task {name!r} runs generated code or needs images or sound: dlbench runs text only")
        from lm_eval.api.registry import get_aggregation
        from lm_eval.defaults import DEFAULT_MAX_GEN_TOKS

        self._inner = inner
        self._spec = spec
        self._splits: dict[Split, Any] = {}
        self._corpus_only = [m for m, how in inner.aggregation().items() if how is not get_aggregation("mean")]
        self._filters = [f.name for f in inner._filters]
        each = [m for m in inner.aggregation() if m not in self._corpus_only] or self._corpus_only[:1]
        if not each:
            raise DlbenchError(f"task {name!r} names no metric")
        self._keys = {m if len(self._filters) == 1 else f"{m}@{f}": (m, f) for f in self._filters for m in each}
        self.name = name
        self.version = str(inner.VERSION)
        self.metrics = tuple(self._keys)
        self.metric = self.metrics[0]
        if not inner.higher_is_better()[each[0]]:
            raise DlbenchError(f"task {name!r} is scored by {each[0]!r}, where less is better: give it a score")
        settings = inner.config.generation_kwargs or {}
        limits = [settings[key] for key in ("max_gen_toks", "max_new_tokens", "max_tokens") if key in settings]
        self.max_new_tokens = int(limits[0] if limits else DEFAULT_MAX_GEN_TOKS)
        self.generator = (inner.config.metadata or {}).get("generator")
        until = settings.get("until") or []
        self._stop = tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop)

    def __reduce__(self) -> tuple[Any, ...]:
        # What lm-eval made does not always pickle; loading again is quick.
        from dlbench.harness import load_task

        return load_task, (self._spec,)

    def documents(self, split: Split, limit: int | None = None) -> list[Document]:
        """The first documents of a split, in a fixed order.

        Args:
            split: `test` to be scored, `fit` for calibration and training of methods.
            limit: how many; None for all.

        Raises:
            DlbenchError: the task has no such split.
        """
        rows = self._rows(split)
        ids = self._ids(split)
        shots = self._inner.config.num_fewshot or 0
        # Examples are drawn in the order of the documents, as lm-eval does, so the draw starts anew for every call.
        self._inner.set_fewshot_seed(_FEWSHOT_SEED)
        found = []
        for index in range(len(rows) if limit is None else min(limit, len(rows))):
            doc = rows[index]
            prompt = self._inner.fewshot_context(doc, num_fewshot=shots, gen_prefix=self._inner.doc_to_prefix(doc))
            found.append(
                Document(
                    id=ids[index],
                    prompt=prompt,
                    references=self._references(doc),
                    limit=self.max_new_tokens,
                    stop=self._stop,
                    index=index,
                    difficulty=int(doc["difficulty"]) if "difficulty" in doc else None,
                    split=split,
                )
            )
        return found

    def score(self, document: Document, output: str) -> dict[str, float]:
        """All metrics of one output, the primary one first."""
        values = self._values(self._rows(document.split)[document.index], output, document)
        return {key: self._number(key, values[key], document) for key in self.metrics}

    def corpus(self, documents: Sequence[Document], outputs: Sequence[str]) -> float | None:
        """The task's first corpus metric over all outputs; None where it has none."""
        if not self._corpus_only or not documents:
            return None
        metric, kept = self._corpus_only[0], self._filters[0]
        values = []
        for document, output in zip(documents, outputs, strict=True):
            doc = self._rows(document.split)[document.index]
            values.append(self._results(doc, self._filtered(doc, output, document)[kept])[metric])
        return float(self._inner.aggregation()[metric](values))

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
        doc = self._rows(document.split)[document.index]
        if not indices or len(document.references) < 2 or not isinstance(field, str) or field not in doc:
            raise ValueError(f"document {document.id!r} of task {self.name!r} has no references to choose from")
        fewer = {**doc, field: [document.references[index] for index in indices]}
        return self._number(self.metric, self._values(fewer, output, document)[self.metric], document)

    def _values(self, doc: Mapping[str, Any], output: str, document: Document) -> dict[str, Any]:
        texts = self._filtered(doc, output, document)
        results = {name: self._results(doc, text) for name, text in texts.items()}
        return {key: results[kept][metric] for key, (metric, kept) in self._keys.items()}

    def _filtered(self, doc: Mapping[str, Any], output: str, document: Document) -> dict[str, Any]:
        """Cut the output at the first stop and put it through each of the task's filters."""
        instance = self._inner.construct_requests(doc=doc, ctx="", metadata=(self.name, document.index, 1))
        instance.resps = [cut(output, document.stop)]
        self._inner._instances = [instance]
        self._inner.apply_filters()
        return dict(instance.filtered_resps)

    def _results(self, doc: Mapping[str, Any], text: Any) -> dict[str, Any]:
        results = dict(self._inner.process_results(doc, [text]))
        if missing := [metric for metric in self._inner.aggregation() if metric not in results]:
            raise DlbenchError(
                f"task {self.name!r} declares the metric {missing[0]!r}, but its scoring does not give it"
            )
        return results

    def _number(self, key: str, value: Any, document: Document) -> float:
        if self._keys[key][0] in self._corpus_only:
            value = self._inner.aggregation()[self._keys[key][0]]([value])
        number = float(value)
        if not math.isfinite(number):
            raise DlbenchError(f"task {self.name!r}: {key} of document {document.id!r} is {number}")
        return number

    def _references(self, doc: Mapping[str, Any]) -> tuple[str, ...]:
        target = self._inner.doc_to_target(doc)
        choices = self._inner.doc_to_choice(doc) if self._inner.config.doc_to_choice is not None else None
        targets = target if isinstance(target, list | tuple) else [target]
        return tuple(str(choices[t] if choices is not None and isinstance(t, int) else t) for t in targets)

    def _rows(self, split: Split) -> Any:
        if split not in self._splits:
            inner = self._inner
            if split == "test":
                rows = inner.eval_docs
            elif inner.has_training_docs():
                rows = inner.training_docs()
            elif inner.has_test_docs() and inner.has_validation_docs():
                rows = inner.validation_docs()
            else:
                raise DlbenchError(f"task {self.name!r} has no split to fit on: run without the methods that learn")
            self._splits[split] = rows
        return self._splits[split]

    def _ids(self, split: Split) -> list[str]:
        """The documents' own ids, or their places where they have none that tell them apart."""
        rows = self._rows(split)
        own = [str(value) for value in rows["id"]] if "id" in rows.features else []
        return own if own and len(set(own)) == len(own) else [f"{split}-{index}" for index in range(len(rows))]


def cut(output: str, stop: Sequence[str]) -> str:
    """The output up to the first text that ends it."""
    places = [place for text in stop if (place := output.find(text)) >= 0]
    return output[: min(places)] if places else output
