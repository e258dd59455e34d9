"""One task: documents out of lm-eval's YAML, and scores for what a model makes of them.

lm-eval makes the prompts and few-shot examples, runs its filters, scores and aggregates; dlbench generates the outputs
in between, or computes the log-likelihoods of given answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from dlbench.data import compatibility, mirrors
from dlbench.data.document import Chat, Document, Split
from dlbench.data.rows.documents import DocumentBuilder
from dlbench.data.scoring.code_hash import scoring_sha256
from dlbench.data.scoring.scorer import Scorer
from dlbench.data.splits import Splits
from dlbench.terminal.quiet import quiet_data_libraries


class Task:
    """Documents and how to score what a model makes of them."""

    name: str
    version: str
    metric: str
    """The primary metric, the first of `metrics`."""
    metrics: tuple[str, ...]
    """All metrics that a document gets; `metric@filter` where the task has several filters."""
    max_new_tokens: int
    """0 where given answers are scored, and nothing is generated."""
    generator: str | None
    """A function that draws fresh documents to train on, `module.name`, where the YAML's metadata names one. Called
    with (task, "train", count, seed), it gives objects with `id`, `input` (the whole prompt) and `references`."""

    def __init__(self, inner: Any, reload: tuple[Callable[..., Task], tuple[Any, ...]]) -> None:
        """Wrap an lm-eval task.

        Args:
            inner: lm-eval's task.
            reload: a function and its arguments that load the task again, in another process.

        Raises:
            DlbenchError: the task is of a kind that dlbench does not run.
        """
        self.name = str(inner.config.task)
        compatibility.check(self.name, inner)
        self._inner, self._reload = inner, reload
        self._splits = Splits(self.name, inner, lambda: self._builder.row_sources)
        self._builder = DocumentBuilder(self.name, inner, self._splits)
        self._scorer = Scorer(
            self.name, inner, lambda: (self._builder.references(row) for row in self._splits.rows("test"))
        )
        self.version = str(inner.VERSION)
        self.metrics = self._scorer.metrics
        self.metric = self.metrics[0]
        self.max_new_tokens = self._builder.max_new_tokens
        self._metadata: Mapping[str, Any] = inner.config.metadata or {}
        self.generator = self._metadata.get("generator")

    def __reduce__(self) -> tuple[Any, ...]:
        # What lm-eval made does not always pickle; loading again is quick.
        return self._reload

    @property
    def inner(self) -> Any:
        """lm-eval's task."""
        return self._inner

    @cached_property
    def scoring_sha256(self) -> str:
        """Names how outputs are scored: configuration and code."""
        return scoring_sha256(self._inner, self._scorer.tokenizer)

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
        """Whether given answers are scored by their log-likelihood; otherwise the model generates a text."""
        return str(self._inner.OUTPUT_TYPE) != "generate_until"

    @property
    def wants_chat(self) -> bool:
        """Whether the task asks for a model's chat template around its prompts."""
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
        return self._scorer.signature([d.references for d in documents])

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
        return self._builder.documents(split, limit, chat, whole=whole)

    def score(self, document: Document, output: str) -> dict[str, float]:
        """All metrics of one output, the primary one first."""
        return self._scorer.score(self._row(document), document, output)

    def judge(self, document: Document, text: str) -> float:
        """The primary metric of a text, with the task's filter or without, whichever is better.

        A filter may look for an answer within a longer text, which a reference by itself is not.
        """
        return self._scorer.judge(self._row(document), document, text)

    def weigh(self, document: Document, answers: Sequence[tuple[float, bool]]) -> dict[str, float]:
        """All metrics of a document whose given answers are scored, the primary one first.

        Args:
            document: has `pairs`.
            answers: for each of them the log-likelihood of the continuation, and whether it is what greedy decoding
                would write.
        """
        return self._scorer.weigh(self._row(document), document, answers)

    def corpus(self, documents: Sequence[Document], outputs: Sequence[str]) -> float | None:
        """The task's first corpus metric over all outputs; None where it has none."""
        return next(iter(self.corpora(documents, outputs).values()), None)

    def corpora(self, documents: Sequence[Document], outputs: Sequence[str]) -> dict[str, float]:
        """All of the task's corpus metrics over all outputs; none where given answers are scored."""
        if self.is_loglikelihood:
            return {}
        return self._scorer.corpora([self._row(document) for document in documents], documents, outputs)

    def choose_references(self, document: Document, output: str, indices: Sequence[int]) -> float:
        """The primary metric of an output against some of the document's references.

        Args:
            document: a document with several references.
            output: what was generated.
            indices: which references count.

        Raises:
            ValueError: no index, or a task whose references cannot be told apart.
        """
        field = self._inner.config.doc_to_target
        row = self._row(document)
        if not indices or len(document.references) < 2 or not isinstance(field, str) or field not in row:
            raise ValueError(f"document {document.id!r} of task {self.name!r} has no references to choose from")
        fewer = {**row, field: [document.references[index] for index in indices]}
        return self._scorer.primary(fewer, document, output)

    def _row(self, document: Document) -> Mapping[str, Any]:
        return self._splits.rows(document.split)[document.index]  # type: ignore[no-any-return]
