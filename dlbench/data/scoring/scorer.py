"""Score what a model wrote, or which answer it prefers, with a task's own filters and metrics.

Every score is per document. A metric that is defined for a corpus only (its aggregation is not `mean`) is given by
`corpora`; where a task has no other, a document's score is that metric for a corpus of one.
"""

from __future__ import annotations

import math
import traceback
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from importlib.metadata import version
from typing import Any

from dlbench.data.document import Document
from dlbench.errors import DlbenchError
from dlbench.system.seeding import same_draws
from dlbench.tasks import metrics as ours
from dlbench.terminal.quiet import quiet_data_libraries

Row = Mapping[str, Any]

_LONGEST_SIGNATURE = 480


class Scorer:
    """Scores the documents of one task.

    Args:
        name: of the task.
        inner: lm-eval's task.
        references: gives those of every row of the scored split.

    Raises:
        DlbenchError: the task has no metric, or one where less is better.
    """

    metrics: tuple[str, ...]
    """All metrics that a document gets, the primary one first; `metric@filter` where the task has several filters."""

    def __init__(self, name: str, inner: Any, references: Callable[[], Iterable[Sequence[str]]]) -> None:
        from lm_eval.api.registry import get_aggregation

        self._name, self._inner, self._references = name, inner, references
        self._corpus_only = [m for m, how in inner.aggregation().items() if how is not get_aggregation("mean")]
        self._filters = [f.name for f in inner._filters]
        each = [m for m in inner.aggregation() if m not in self._corpus_only] or self._corpus_only[:1]
        if not each:
            raise DlbenchError(f"task {name!r} names no metric")
        if not inner.higher_is_better()[each[0]]:
            raise DlbenchError(f"task {name!r} is scored by {each[0]!r}, where less is better: give it a score")
        self._keys = {m if len(self._filters) == 1 else f"{m}@{f}": (m, f) for f in self._filters for m in each}
        self.metrics = tuple(self._keys)

    @cached_property
    def tokenizer(self) -> str | None:
        """What BLEU splits texts by: one for the task, whatever documents a run takes; None where lm-eval chooses."""
        if not self._is_ours or not any("bleu" in metric for metric in self._inner.aggregation()):
            return None
        with quiet_data_libraries():
            return ours.bleu_tokenizer(text for several in self._references() for text in several)

    def score(self, row: Row, document: Document, output: str) -> dict[str, float]:
        """All metrics of one output, the primary one first."""
        values = self._values(row, output, document)
        return {key: self._number(key, values[key], document) for key in self.metrics}

    def judge(self, row: Row, document: Document, text: str) -> float:
        """The primary metric of a text, with the task's filter or without, whichever is better."""
        metric, _ = self._keys[self.metrics[0]]
        values = self._values(row, text, document)[self.metrics[0]], self._results(row, [text])[metric]
        return max(self._number(self.metrics[0], value, document) for value in values)

    def primary(self, row: Row, document: Document, output: str) -> float:
        """The primary metric of one output."""
        return self._number(self.metrics[0], self._values(row, output, document)[self.metrics[0]], document)

    def weigh(self, row: Row, document: Document, answers: Sequence[tuple[float, bool]]) -> dict[str, float]:
        """All metrics of a document by the log-likelihoods of its answers; the arguments are those of `Task.weigh`."""
        contexts = [context for context, _ in document.pairs]
        # lm-eval's own context is one text, or one per answer.
        context = contexts if self._inner.multiple_input else contexts[0]
        made = self._inner.construct_requests(doc=row, ctx=context, metadata=(self._name, 0, 1))
        instances = made if isinstance(made, list) else [made]
        for instance, answer in zip(instances, answers, strict=True):
            instance.resps = [answer]
        self._inner._instances = instances
        self._inner.apply_filters()
        results = {f: self._results(row, [i.filtered_resps[f] for i in instances]) for f in self._filters}
        return {key: self._number(key, results[kept][metric], document) for key, (metric, kept) in self._keys.items()}

    def corpora(self, rows: Sequence[Row], documents: Sequence[Document], outputs: Sequence[str]) -> dict[str, float]:
        """All corpus metrics of the task over all outputs."""
        if not self._corpus_only or not documents:
            return {}
        kept, results = self._filters[0], []
        for row, document, output in zip(rows, documents, outputs, strict=True):
            results.append(self._results(row, [self._filtered(row, output, document)[kept]]))
        return {metric: self._aggregate(metric, [one[metric] for one in results]) for metric in self._corpus_only}

    def signature(self, references: Sequence[Sequence[str]]) -> str:
        """How the metrics are computed, on one line that fits a record.

        Args:
            references: of every document.
        """
        if self._is_ours:
            scoring = self._inner.config.process_results.__name__
            with self._fixed_tokenizer():
                return ours.signature(self._inner.aggregation(), scoring, references)
        shown = []
        for metric in dict.fromkeys(m.partition("@")[0] for m in self.metrics):
            options = getattr(self._inner, "_metric_fn_kwargs", {}).get(metric) or {}
            listed = ", ".join(f"{key}={value}" for key, value in options.items())
            shown.append(f"{metric}({listed})" if listed else metric)
        text = f"lm-eval {version('lm_eval')}, task version {self._inner.VERSION}: {'; '.join(shown)}"
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
        return text if len(text) <= _LONGEST_SIGNATURE else text[: _LONGEST_SIGNATURE - 1] + "…"

    @property
    def _is_ours(self) -> bool:
        """Whether the task is scored by a function of dlbench's registry of metrics."""
        return ours.is_registered(self._inner.config.process_results)

    def _fixed_tokenizer(self) -> AbstractContextManager[None]:
        """Inside, BLEU takes the task's tokenizer, if there is one."""
        return nullcontext() if self.tokenizer is None else ours.bleu_tokenized_by(self.tokenizer)

    def _values(self, row: Row, output: str, document: Document) -> dict[str, Any]:
        texts = self._filtered(row, output, document)
        results = {name: self._results(row, [text]) for name, text in texts.items()}
        return {key: results[kept][metric] for key, (metric, kept) in self._keys.items()}

    def _filtered(self, row: Row, output: str, document: Document) -> dict[str, Any]:
        """Put the answer in an output through each of the task's filters."""
        instance = self._inner.construct_requests(doc=row, ctx="", metadata=(self._name, document.index, 1))
        instance.resps = [document.answer(output)]
        self._inner._instances = [instance]
        self._inner.apply_filters()
        return dict(instance.filtered_resps)

    def _results(self, row: Row, answers: Sequence[Any]) -> dict[str, Any]:
        try:
            with self._fixed_tokenizer(), same_draws(zlib.crc32(repr(answers).encode())):
                results = dict(self._inner.process_results(row, answers))
        except Exception as error:
            *_, last = traceback.extract_tb(error.__traceback__)
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise DlbenchError(
                f"task {self._name!r}: its scoring fails: {text} ({last.filename}, line {last.lineno})"
            ) from error
        if missing := [metric for metric in self._inner.aggregation() if metric not in results]:
            raise DlbenchError(
                f"task {self._name!r} declares the metric {missing[0]!r}, but its scoring does not give it"
            )
        return results

    def _aggregate(self, metric: str, values: Sequence[Any]) -> float:
        with self._fixed_tokenizer(), same_draws():
            return float(self._inner.aggregation()[metric](values))

    def _number(self, key: str, value: Any, document: Document) -> float:
        if self._keys[key][0] in self._corpus_only:
            value = self._aggregate(self._keys[key][0], [value])
        number = float(value)
        if not math.isfinite(number):
            raise DlbenchError(f"task {self._name!r}: {key} of document {document.id!r} is {number}")
        return number
