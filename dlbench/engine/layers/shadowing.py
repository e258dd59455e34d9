"""Replace the `forward` of modules for a while; module tree, names, hooks and state dict stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from torch import nn

Forward = Callable[..., Any]


@final
class Shadows:
    """The modules whose `forward` is replaced, and what they had before."""

    def __init__(self) -> None:
        self._before: list[tuple[nn.Module, Forward | None]] = []

    def put(self, module: nn.Module, forward: Forward) -> None:
        """Replace a module's `forward`; what it had at first is what `undo` restores."""
        before = vars(module).get("forward")
        # accelerate puts its hooks there too: the replacement calls them, and `undo` puts them back
        if before is None or all(module is not shadowed for shadowed, _ in self._before):
            self._before.append((module, before))
        vars(module)["forward"] = forward

    def undo(self) -> None:
        """Restore every module, the last one first."""
        while self._before:
            module, before = self._before.pop()
            if before is None:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = before
