"""A hash of how a task is scored, for the content keys of fits that learn from scores.

Samples need no such hash: they are scored again, see `dlbench.evaluation.rescoring`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from dlbench.registry.provenance import Walk

_FIELDS = ("output_type", "process_results", "doc_to_target", "doc_to_choice", "metric_list", "filter_list")


def scoring_sha256(inner: Any, tokenizer: str | None = None) -> str:
    """sha256 over the configuration of a task's scoring, and over the code that it runs.

    Code counts as in `dlbench.registry.provenance`: local files by their content, installed packages by their release.
    For dlbench's own tasks other libraries do not count, so that the fits that ship with dlbench are found beside any
    release of these.

    Args:
        inner: lm-eval's task.
        tokenizer: that of BLEU, where the task's references decide it.
    """
    config = inner.config
    ours = getattr(config.process_results, "__module__", "") == "dlbench.tasks.metrics"
    walk = Walk(own=("dlbench",), releases=not ours)
    content = {name: _plain(getattr(config, name, None), walk) for name in _FIELDS}
    if tokenizer not in (None, "13a"):
        content["tokenizer"] = tokenizer
    if not ours:
        content["class"] = _plain(type(inner), walk)
        content["metrics"] = _plain(getattr(inner, "_metric_fn_list", {}), walk)
        content["aggregation"] = _plain(inner.aggregation(), walk)
        content["filters"] = [[f.name, _plain(list(f.filters), walk)] for f in inner._filters]
    return walk.digest(str(inner.VERSION), content)


def _plain(value: Any, walk: Walk) -> Any:
    """A setting as JSON; the files of callables are added to the walk."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return [[str(key), _plain(one, walk)] for key, one in sorted(value.items(), key=lambda item: str(item[0]))]
    if isinstance(value, list | tuple):
        return [_plain(one, walk) for one in value]
    if isinstance(value, functools.partial):
        return [_plain(value.func, walk), _plain(value.args, walk), _plain(value.keywords, walk)]
    walk.add_object(value)
    return getattr(value, "__qualname__", type(value).__qualname__)
