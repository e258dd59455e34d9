"""Which tasks of lm-eval dlbench can run truthfully, and how it says what their metrics are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dlbench.errors import DlbenchError

WRITES = "generate_until"
WEIGHS = ("multiple_choice", "loglikelihood")
_WHOLE = ("exact_match", "bypass")
"""Metrics that are 0 or 1 whatever lm-eval does to them."""
_LONGEST = 480


def check(name: str, inner: Any) -> None:
    """Refuse what would not be run, or scored, as it is meant.

    Args:
        name: the task's.
        inner: lm-eval's task.

    Raises:
        DlbenchError: the message says why.
    """
    kind = inner.OUTPUT_TYPE
    if kind not in (WRITES, *WEIGHS):
        raise DlbenchError(
            f"task {name!r} is a {kind} task: dlbench runs tasks that write text ({WRITES}) or weigh answers "
            f"({', '.join(WEIGHS)})"
        )
    if getattr(inner, "UNSAFE_CODE", False) or getattr(inner, "MULTIMODAL", False):
        raise DlbenchError(f"task {name!r} runs generated code or needs images or sound: dlbench runs text only")
    if (times := getattr(inner.config, "repeats", 1) or 1) > 1:
        raise DlbenchError(f"task {name!r} asks for {times} outputs per document: dlbench writes one")
    if kind == WRITES and isinstance(_first_request(name, inner), list):
        raise DlbenchError(f"task {name!r} asks a model several things about one document: dlbench asks one")
    own = callable(inner.config.process_results)
    rounded = [m for m in getattr(inner, "_metric_fn_list", {}) if m not in _WHOLE]
    if kind == WRITES and getattr(inner, "multiple_target", 0) and not own and rounded:
        raise DlbenchError(
            f"task {name!r} has several references per document, and of several lm-eval makes 1.0 out of any "
            f"{rounded[0]} above 0: no score to compare by; give the task a process_results of its own"
        )
    if kind in WEIGHS and not _means(inner):
        raise DlbenchError(
            f"task {name!r} has no metric per document, only {', '.join(inner.aggregation())} of a whole corpus: "
            "nothing can be paired"
        )


def tokenizer(inner: Any, references: Iterable[Sequence[str]]) -> str | None:
    """The tokenizer that BLEU takes for all texts of a task; None where it is not ours to choose.

    Args:
        inner: lm-eval's task.
        references: of every row of its scored split.
    """
    if not _ours(inner) or not any("bleu" in metric for metric in inner.aggregation()):
        return None
    from dlbench.tasks.metrics import bleu_tokenizer

    return bleu_tokenizer(text for several in references for text in several)


def parted_by(chosen: str | None) -> AbstractContextManager[None]:
    """Inside, BLEU takes a tokenizer, if one was chosen."""
    if chosen is None:
        return nullcontext()
    from dlbench.tasks import metrics

    return metrics.parted_by(chosen)


def signature(inner: Any, metrics: Sequence[str], references: Sequence[Sequence[str]]) -> str:
    """How a task's metrics are computed, on one line that fits a record.

    Args:
        inner: lm-eval's task.
        metrics: as `Task.metrics` has them.
        references: of every document.
    """
    if _ours(inner):
        from dlbench.tasks.metrics import signature as ours

        return ours(inner.aggregation(), inner.config.process_results.__name__, references)
    from importlib.metadata import version

    said = []
    for metric in dict.fromkeys(m.partition("@")[0] for m in metrics):
        options = getattr(inner, "_metric_fn_kwargs", {}).get(metric) or {}
        listed = ", ".join(f"{key}={value}" for key, value in options.items())
        said.append(f"{metric}({listed})" if listed else metric)
    text = f"lm-eval {version('lm_eval')}, task version {inner.VERSION}: {'; '.join(said)}"
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _ours(inner: Any) -> bool:
    """Whether a task is scored by the suites' own functions."""
    return getattr(inner.config.process_results, "__module__", "") == "dlbench.tasks.metrics"


def _first_request(name: str, inner: Any) -> Any:
    """What lm-eval would ask a model for the first document."""
    try:
        return inner.construct_requests(doc=inner.task_docs[0], ctx="", metadata=(name, 0, 1))
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise DlbenchError(f"task {name!r} makes no request that dlbench understands: {text}") from error


def _means(inner: Any) -> list[str]:
    from lm_eval.api.registry import get_aggregation

    return [metric for metric, how in inner.aggregation().items() if how is get_aggregation("mean")]
