"""Check that an lm-eval task is supported."""

from __future__ import annotations

from typing import Any

from dlbench.errors import DlbenchError

GENERATES = "generate_until"
LOGLIKELIHOOD = ("multiple_choice", "loglikelihood")
_ZERO_OR_ONE = ("exact_match", "bypass")
"""Metrics that lm-eval's own scoring of several references does not distort: they are 0 or 1."""


def check(name: str, inner: Any) -> None:
    """Raise if dlbench cannot run a task, or cannot score it, as its authors meant it.

    Args:
        name: the task's.
        inner: lm-eval's task.

    Raises:
        DlbenchError: the message says why.
    """
    kind = inner.OUTPUT_TYPE
    if kind not in (GENERATES, *LOGLIKELIHOOD):
        raise DlbenchError(
            f"task {name!r} is a {kind} task: dlbench runs tasks that generate text ({GENERATES}) or score "
            f"given answers ({', '.join(LOGLIKELIHOOD)})"
        )
    if getattr(inner, "UNSAFE_CODE", False) or getattr(inner, "MULTIMODAL", False):
        raise DlbenchError(f"task {name!r} runs generated code or needs images or sound: dlbench runs text only")
    if (times := getattr(inner.config, "repeats", 1) or 1) > 1:
        raise DlbenchError(f"task {name!r} asks for {times} outputs per document: dlbench generates one")
    if kind == GENERATES and isinstance(_first_request(name, inner), list):
        raise DlbenchError(f"task {name!r} asks a model several things about one document: dlbench asks one")
    own = callable(inner.config.process_results)
    rounded = [m for m in getattr(inner, "_metric_fn_list", {}) if m not in _ZERO_OR_ONE]
    if kind == GENERATES and getattr(inner, "multiple_target", 0) and not own and rounded:
        raise DlbenchError(
            f"task {name!r} has several references per document, and of several lm-eval makes 1.0 out of any "
            f"{rounded[0]} above 0: no score to compare by; give the task a process_results of its own"
        )
    if kind in LOGLIKELIHOOD and not _averaged(inner):
        raise DlbenchError(
            f"task {name!r} has no metric per document, only {', '.join(inner.aggregation())} of a whole corpus: "
            "nothing can be paired"
        )


def _first_request(name: str, inner: Any) -> Any:
    """The request, or the requests, that lm-eval makes of the first document."""
    try:
        return inner.construct_requests(doc=inner.task_docs[0], ctx="", metadata=(name, 0, 1))
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise DlbenchError(f"task {name!r} makes no request that dlbench understands: {text}") from error


def _averaged(inner: Any) -> list[str]:
    """The metrics that are a mean over documents."""
    from lm_eval.api.registry import get_aggregation

    return [metric for metric, how in inner.aggregation().items() if how is get_aggregation("mean")]
