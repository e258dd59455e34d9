"""Which documents of a task are scored and which methods are fitted on; the two never share one.

Fitted on is the train split, else validation, else a fifth of the scored split, chosen by the hash of the documents'
ids, which is then not scored. Of a fit split larger than `FIT_DOCUMENTS` the hash chooses that many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from dlbench.document import Split
from dlbench.errors import DlbenchError

FIT_DOCUMENTS = 2000
"""More than any method learns from; preparing the others would take minutes."""
FIFTH = "a fifth of {split}, not scored"


class Splits:
    """The documents of one lm-eval task by their use."""

    def __init__(self, name: str, inner: Any) -> None:
        """Look at a task's splits; nothing is read yet.

        Args:
            name: for messages.
            inner: lm-eval's task.
        """
        self._name, self._inner = name, inner
        config = inner.config
        self._own: Literal["training", "validation", None] = None
        if inner.has_training_docs():
            self._own, self.fit = "training", str(config.training_split)
        elif inner.has_test_docs() and inner.has_validation_docs():
            self._own, self.fit = "validation", str(config.validation_split)
        else:
            scored = config.test_split if inner.has_test_docs() else config.validation_split
            self.fit = FIFTH.format(split=scored)

    def rows(self, split: Split) -> Any:
        """All rows that the split's documents stand in."""
        return self._test if split == "test" or self._own is None else self._fit

    def places(self, split: Split, *, whole: bool = False) -> Sequence[int]:
        """Which of the rows are the split's documents, in their order.

        Args:
            split: the use.
            whole: all of a fit split that is larger than `FIT_DOCUMENTS`.

        Raises:
            DlbenchError: there is nothing to fit on.
        """
        if split == "test":
            return self._scored
        if self._own is None:
            if not self._fifth:
                raise DlbenchError(
                    f"task {self._name!r} has too few documents to fit on: run methods that do not learn"
                )
            return sorted(self._fifth)
        count = len(self._fit)
        if whole or count <= FIT_DOCUMENTS:
            return range(count)
        return sorted(_first_by_hash(self.ids("fit"), FIT_DOCUMENTS))

    def ids(self, split: Split) -> list[str]:
        """The rows' own ids, or their places where they have none that tell them apart."""
        rows = self.rows(split)
        label = "test" if rows is self._test else "fit"
        own = [str(value) for value in rows["id"]] if "id" in rows.features else []
        return own if own and len(set(own)) == len(own) else [f"{label}-{index}" for index in range(len(rows))]

    @cached_property
    def _test(self) -> Any:
        return self._inner.eval_docs

    @cached_property
    def _fit(self) -> Any:
        return self._inner.training_docs() if self._own == "training" else self._inner.validation_docs()

    @cached_property
    def _fifth(self) -> frozenset[int]:
        return frozenset(_first_by_hash(self.ids("test"), len(self._test) // 5))

    @cached_property
    def _scored(self) -> Sequence[int]:
        count = len(self._test)
        return range(count) if self._own is not None else [i for i in range(count) if i not in self._fifth]


def _first_by_hash(ids: Sequence[str], count: int) -> list[int]:
    """Places of the ids that come first when all are ordered by their hash."""
    return sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())[:count]
