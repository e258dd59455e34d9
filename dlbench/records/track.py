"""What makes results comparable: the protocol, the name of a track, and the content key of a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

PROTOCOL = 3
"""Raised whenever a change of dlbench may change outputs or scores: rows of different protocols never share a track."""


class TrackTask(Protocol):
    """What a track's name says of its task."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def version(self) -> str:
        """Raised whenever prompts, data or scoring change."""

    @property
    def max_new_tokens(self) -> int:
        """Most new tokens."""

    @property
    def is_loglikelihood(self) -> bool:
        """Whether given answers are scored."""


def track_name(base_sha256: str, task: TrackTask, documents_sha256: str, *, prompt: str, generation: str = "") -> str:
    """Return the name of the track; only rows of one track may be ranked together.

    Args:
        base_sha256: hash of the backbone that all rows are compared with.
        task: what is scored.
        documents_sha256: hash of the whole scored split.
        prompt: layers that prompts run, "full" or "routed".
        generation: digest of what a generation_config changes; empty if that is nothing.
    """
    parts = [
        f"base={base_sha256[:12]}",
        f"task={task.name}@{task.version}",
        f"data={documents_sha256[:12]}",
        f"prompt={prompt}",
        "loglikelihood" if task.is_loglikelihood else f"greedy<={task.max_new_tokens}",
        *([f"generation={generation}"] if generation else []),
        f"protocol={PROTOCOL}",
    ]
    return " ".join(parts)


def content_key(content: Mapping[str, Any]) -> str:
    """Return the content key: a hash of all that a result depends on."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
