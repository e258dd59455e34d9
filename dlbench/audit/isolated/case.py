"""A method to be audited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlbench.registry import methods as registry


@dataclass(frozen=True)
class Case:
    """A method to be audited."""

    given: str
    """Name, path of a plugin file, or name of a packed method."""
    params: Mapping[str, Any]
    packed: tuple[str, str, str | None] | None = None
    """Folder, path of the file below it, and class, of a method that comes with its source; see `load_packed`."""

    @property
    def file(self) -> Path | None:
        """The file that defines it."""
        return Path(self.packed[0], self.packed[1]) if self.packed else registry.locate(self.given).path

    def load(self) -> registry.MethodClass:
        """Import it."""
        if self.packed is None:
            return registry.load(self.given)
        folder, label, class_name = self.packed
        return registry.load_packed(self.given, Path(folder), label, class_name)
