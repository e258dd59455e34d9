"""What the scores of a task depend on beside its documents, as a hash: fits that learn from scores are kept under it.

Samples need none: they are scored again, see `dlbench.evaluation.rescoring`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from dlbench.registry.provenance import Walk

_FIELDS = ("output_type", "process_results", "doc_to_target", "doc_to_choice", "metric_list", "filter_list")


def scoring_sha256(inner: Any, tokenizer: str | None = None) -> str:
    """sha256 over how a task of lm-eval is configured to score, and over the code that does it.

    Code counts as in `dlbench.registry.provenance`: by what it says where it is local, by its release where it is
    installed. The suite's own tasks leave other libraries out, so that fits that ship with dlbench are found beside any
    release.

    Args:
        inner: lm-eval's task.
        tokenizer: of BLEU, where the task's references choose it.
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
    """A setting as JSON has it; the code of what can be called goes to the walk."""
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
