"""Which documents of a task are scored, and which ones methods are fitted on; no document is in both.

Methods are fitted on the train split, else on the validation split, else on a fifth of the scored split, chosen by the
hash of the documents' ids, which is then not scored. Of a fit split larger than `FIT_DOCUMENTS` that many are chosen by
the hash.

Splits are compared by their rows, not by their names. Two rows are the same document if they ask the same: the question
without few-shot examples, and the answers to choose from where there are any; references do not matter. Documents of
the fit split that are scored too are left out of it; a fit split that is empty after that is not used. For few-shot
examples see `dlbench.data.rows.few_shot`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dlbench.data.document import Split
from dlbench.data.rows.duplicates import Questions
from dlbench.data.rows.sources import distinct
from dlbench.errors import DlbenchError
from dlbench.system.seeding import same_draws

FIT_DOCUMENTS = 2000
"""Most documents to fit on: more than any method learns from; preparing all of a large split would take minutes."""
FIFTH = "a fifth of {split}, not scored"
SAMPLE_SEED = 0
"""Seed of the sample that a limit takes; fixed, so that every run takes the same documents."""


@dataclass(frozen=True)
class _FitSide:
    """What methods are fitted on.

    Attributes:
        name: as in records.
        rows: all rows of the split; None where they cannot be read.
        places: indices of the documents among the rows, at most `FIT_DOCUMENTS`.
        overlap: number of documents left out because they are scored too.
        apart: whether these are a part of the scored split, which is then not scored.
        fault: why the rows cannot be read.
    """

    name: str
    rows: Any
    places: Sequence[int] = ()
    overlap: int = 0
    apart: bool = False
    fault: Exception | None = None


class Splits:
    """The scored documents of one lm-eval task, and those to fit on; nothing is read before it is needed.

    Args:
        name: the task's, for messages.
        inner: lm-eval's task.
        sources: gives the source of every row of the scored split, None where a row has none.
    """

    def __init__(self, name: str, inner: Any, sources: Callable[[], Sequence[str | None]] = tuple) -> None:
        self._name, self._inner, self._sources = name, inner, sources

    @property
    def fit(self) -> str:
        """What methods are fitted on: the name of a split, or that a fifth of the scored one is set apart."""
        return self._side.name

    @property
    def overlap(self) -> int:
        """Documents that methods would have been fitted on, had they not been scored too."""
        return self._side.overlap

    def rows(self, split: Split) -> Any:
        """All rows of the data split that the documents are taken from."""
        return self._test if split == "test" else self._side.rows

    def places(self, split: Split, *, whole: bool = False) -> Sequence[int]:
        """Indices of the documents among the rows, in order.

        Args:
            split: `test` for those that are scored, `fit` for those to fit on.
            whole: all of a fit split that is larger than `FIT_DOCUMENTS`.

        Raises:
            DlbenchError: there is nothing to fit on.
        """
        side = self._side
        if split == "test":
            apart = frozenset(side.places if side.apart else ())
            return [place for place in range(len(self._test)) if place not in apart]
        if side.fault is not None:
            text = " ".join(f"{type(side.fault).__name__}: {side.fault}".split())
            raise DlbenchError(f"task {self._name!r}: its split {side.name!r} cannot be read: {text}") from side.fault
        if not side.places:
            raise DlbenchError(f"task {self._name!r} has too few documents to fit on: run methods that do not learn")
        if whole and not side.apart and len(side.rows) > FIT_DOCUMENTS:
            return [place for place in range(len(side.rows)) if not self._is_scored(side.rows[place])]
        return side.places

    def ids(self, split: Split) -> list[str]:
        """The rows' own ids, or ids made of their indices where these are missing or not unique."""
        scored = split == "test" or self._side.apart
        return _ids(self._test if scored else self._side.rows, "test" if scored else "fit")

    @property
    def asked(self) -> Sequence[bytes | None]:
        """The hash of what every row of the scored split asks; None where that is not known."""
        return self._asked[1]

    @cached_property
    def _test(self) -> Any:
        return _read(lambda: self._inner.eval_docs)

    @cached_property
    def _side(self) -> _FitSide:
        overlap = 0
        for name, own, read in self._offered():
            if own is not None and own == self._scored[1]:
                overlap += len(self._test)
                continue
            try:
                rows = _read(read)
            except Exception as error:  # an error only if something is fitted
                return _FitSide(name, None, overlap=overlap, fault=error)
            kept: list[int] = []
            for place in range(len(rows)) if len(rows) <= FIT_DOCUMENTS else _by_hash(_ids(rows, "fit")):
                if len(kept) == FIT_DOCUMENTS:
                    break
                if self._is_scored(rows[place]):
                    overlap += 1
                else:
                    kept.append(place)
            if kept:
                return _FitSide(name, rows, sorted(kept), overlap)
        return _FitSide(FIFTH.format(split=self._scored[0]), self._test, sorted(self._fifth()), overlap, apart=True)

    def _offered(self) -> Iterator[tuple[str, str | None, Callable[[], Any]]]:
        """The splits that could be fitted on, best first: name, name in the data where known, a reader of its rows."""
        inner, config = self._inner, self._inner.config
        if inner.has_training_docs():
            yield str(config.training_split or "train"), config.training_split, inner.training_docs
        if inner.has_test_docs() and inner.has_validation_docs():
            yield str(config.validation_split or "validation"), config.validation_split, inner.validation_docs

    @property
    def _scored(self) -> tuple[str, str | None]:
        """The scored split: its name, and its name in the data where known."""
        config, tested = self._inner.config, self._inner.has_test_docs()
        own = config.test_split if tested else config.validation_split
        return str(own or ("test" if tested else "validation")), own

    def _fifth(self) -> set[int]:
        """Indices of a fifth of the scored split, by hash; rows that ask the same or share a source stay together."""
        ids, groups = _ids(self._test, "test"), self._groups()
        wanted, taken = len(ids) // 5, set[int]()
        order = _by_hash(ids)
        for place in order:
            if place not in taken and len(taken) + len(groups[place]) <= wanted:
                taken.update(groups[place])
        if wanted and not taken:
            smallest = min((groups[place] for place in order), key=len)
            taken.update(smallest if 2 * len(smallest) <= len(ids) else ())
        return taken

    def asks(self, row: Any) -> bytes | None:
        """The hash of what a row asks, in this task; None where that is not known."""
        return self._asked[0].hash(row)

    @cached_property
    def scored(self) -> frozenset[bytes | None]:
        """What the scored documents ask."""
        return self._asked_at(self.places("test"))

    @cached_property
    def _in_scored_split(self) -> frozenset[bytes | None]:
        """What all rows of the scored split ask, those set apart for fitting too."""
        return self._asked_at(range(len(self._test)))

    def _asked_at(self, places: Iterable[int]) -> frozenset[bytes | None]:
        """What the rows at these places of the scored split ask."""
        return frozenset(self._asked[1][place] for place in places) - {None}

    @cached_property
    def _asked(self) -> tuple[Questions, list[bytes | None]]:
        """What every row of the scored split asks; where all prompts are equal, the references count too."""
        questions = Questions(self._inner)
        hashes = [questions.hash(row) for row in self._test]
        if len(hashes) == 1 or len(set(hashes)) > 1 or self._differs(questions, hashes[0]):
            return questions, hashes
        questions = Questions(self._inner, answered=True)
        return questions, [questions.hash(row) for row in self._test]

    def _differs(self, questions: Questions, asked: bytes | None) -> bool:
        """Whether any row that could be fitted on asks something else."""
        for _, _, read in self._offered():
            with contextlib.suppress(Exception):  # an error where the split is needed
                if any(questions.hash(row) != asked for row in _read(read)):
                    return True
        return False

    def _is_scored(self, row: Any) -> bool:
        return self.asks(row) in self._in_scored_split

    def _groups(self) -> list[list[int]]:
        """For every row of the scored split the indices of all rows that ask the same, or share its source."""
        sources = distinct(self._sources() or [None] * len(self._asked[1]))
        by_key: dict[bytes | str, list[int]] = {}
        groups = []
        for place, (source, one) in enumerate(zip(sources, self._asked[1], strict=True)):
            key = one if source is None else source
            same = [] if key is None else by_key.setdefault(key, [])
            same.append(place)
            groups.append(same)
        return groups


def sample(ids: Sequence[str], count: int) -> list[int]:
    """Indices of a sample, in order; a larger sample contains every smaller one.

    Args:
        ids: of the documents.
        count: size of the sample, at most.
    """
    return sorted(_by_hash([f"sample {SAMPLE_SEED}: {id_}" for id_ in ids])[:count])


def _read(rows: Callable[[], Any]) -> Any:
    """Read rows with fixed seeds, so that every reading gives the same; an iterator becomes a list."""
    with same_draws():
        read = rows()
        return read if hasattr(read, "__getitem__") and hasattr(read, "__len__") else list(read)


def _ids(rows: Any, label: str) -> list[str]:
    own = [str(value) for value in rows["id"]] if "id" in getattr(rows, "features", ()) else []
    return own if own and len(set(own)) == len(own) else [f"{label}-{index}" for index in range(len(rows))]


def _by_hash(ids: Sequence[str]) -> list[int]:
    """Indices in the order of the ids' hashes."""
    return sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())
