"""Attributes that a method's code reads of what it is handed: those of the interface, and no others."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dlbench.audit.isolated.event_watch import own_files
from dlbench.engine.routing.live_view import LiveView
from dlbench.engine.routing.prompt_states import PromptStates
from dlbench.method import Probe, Prompt, View


def _public(interface: type) -> frozenset[str]:
    names = {*dir(interface), *getattr(interface, "__annotations__", {})}
    return frozenset(name for name in names if not name.startswith("_"))


_INTERFACES: dict[type, frozenset[str]] = {
    LiveView: _public(View) | {"layer", "depth"},
    PromptStates: _public(Prompt),
}
"""What a method gets while it decodes → what the interface offers of it."""


@contextlib.contextmanager
def watched_interface(
    kind: type | None, name: str, file: Path | None, note: Callable[[str, str], None]
) -> Iterator[None]:
    """Note while entered what a method's code reads beyond the interface.

    Args:
        kind: the class of the probe; None for what a method gets while it decodes.
        name: of the interface, for the finding.
        file: that defines the method.
        note: called with the kind of a finding, and what was seen.
    """
    interfaces = _INTERFACES if kind is None else {kind: _public(Probe)}
    own = own_files(file)
    for one, allowed in interfaces.items():
        setattr(one, "__getattribute__", _watched(allowed, name, own, note))  # noqa: B010  # not known to type checkers
    try:
        yield
    finally:
        for one in interfaces:
            del one.__getattribute__


def _watched(
    allowed: frozenset[str], of: str, own: Callable[[str], bool], note: Callable[[str, str], None]
) -> Callable[[object, str], Any]:
    def read(self: object, name: str) -> Any:
        private = name == "__dict__" or not (name in allowed or name.startswith("__"))
        if private and own(sys._getframe(1).f_code.co_filename):
            note("internals", f"{of}.{name}")
        return object.__getattribute__(self, name)

    return read
