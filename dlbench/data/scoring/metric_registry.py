"""The registry of metrics: the one list that `--metric`, its help, file tasks and signatures read.

To add a metric, decorate one function with `metric`. It has the form of lm-eval's `process_results`, so that a task's
YAML can name it too, and lm-eval run that YAML alone. Readers go through `dlbench.tasks.metrics`, which holds the
metrics of dlbench: importing that module fills the registry.

This file imports nothing of dlbench: its code counts as part of how the suites' tasks are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

References = Sequence[Sequence[str]]
"""Of every document, in order."""
Score = Callable[[Mapping[str, Any], Sequence[str]], Mapping[str, Any]]
"""Called with a row and the output in a list; gives each value by its name."""
AnyScore = TypeVar("AnyScore", bound=Score)


@dataclass(frozen=True)
class Value:
    """One number that a scoring function gives."""

    name: str
    how: str | Callable[[References], str]
    """How it is computed, on one line that begins with its name; may depend on the references."""
    corpus: Callable[[Iterable[Any]], float] | None = None
    """Computes it from what the function gives of every document, where it is defined for a corpus only; None: the mean
    over documents."""


@dataclass(frozen=True)
class Metric:
    """A scoring function and the values that it gives, the primary one first."""

    score: Score
    values: tuple[Value, ...]


_METRICS: list[Metric] = []
_OF_FILES: dict[str, Metric] = {}


def metric(*values: Value, of_files: bool = True) -> Callable[[AnyScore], AnyScore]:
    """Register a scoring function; stacked decorators register it several times.

    Args:
        *values: what it gives, the primary value first: that one names the metric.
        of_files: whether a file of documents can be scored by it (`--metric NAME`); otherwise only a YAML names it.

    Raises:
        ValueError: another function is registered as a metric of files by that name.
    """
    name = values[0].name

    def register(score: AnyScore) -> AnyScore:
        made = Metric(score, values)
        _METRICS.append(made)
        if of_files:
            # lm-eval imports the file beside a YAML by itself, and again once it has changed.
            if name in _OF_FILES and _place(_OF_FILES[name].score) != _place(score):
                raise ValueError(f"two metrics are named {name!r}: rename one")
            _OF_FILES[name] = made
        return score

    return register


def _place(score: Score) -> tuple[str, str]:
    """File and name of a function, the same however often the file is imported."""
    code = getattr(score, "__code__", None)
    return getattr(code, "co_filename", ""), getattr(score, "__qualname__", "")


def of_files() -> Mapping[str, Metric]:
    """What a file of documents can be scored by, in the order of registration."""
    return _OF_FILES


def is_registered(score: object) -> bool:
    """Whether a function is one of the registry's."""
    return any(one.score is score for one in _METRICS)


def signature(names: Iterable[str], scoring: str, references: References) -> str:
    """How values are computed, by which release of which library: what makes two numbers comparable.

    Args:
        names: of the values.
        scoring: name of the function that gives them; two functions may mean different things by one name.
        references: of every document.
    """
    own = [one for one in _METRICS if getattr(one.score, "__name__", "") == scoring]
    known = {value.name: value for one in [*_METRICS, *own] for value in one.values}
    texts = [known[name].how for name in names if name in known]
    return "; ".join(dict.fromkeys(text if isinstance(text, str) else text(references) for text in texts))
