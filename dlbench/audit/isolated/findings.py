"""What an audit can find: each kind has a name, and a line that says what it means."""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

KINDS = MappingProxyType(
    {
        "ends": "the method ended its process, failed, or did not come to an end",
        "weights": "the backbone's weights are not what they were",
        "global-state": "global state was changed and left so",
        "code": "code of the harness, of torch or of Python was replaced",
        "internals": "it reads what is no part of the interface",
        "memory": "it searches the memory of the process, or the stack of its callers",
        "test-split": "it asks for documents that are scored",
        "files": "it reads files that are not its own",
        "writes": "it writes, renames or removes files",
        "processes": "it starts processes",
        "threads": "it starts threads",
        "network": "it opens a connection",
        "state": "asked again, it decides otherwise: state outside of `view.memory`, or noise not from `view.uniform`",
        "neighbours": "a text depends on the others of its batch, or on their order",
        "ids": "it decides by the documents' ids",
        "references": "it decides by the references of the documents that it decodes",
        "timed": "it decides otherwise while it is timed",
        "texts": "its routes, replayed without it, give other texts",
        "flops": "its FLOPs do not follow from its routes",
        "uncounted": "it computes much that is not counted",
        "idle": "it keeps the processor busy while others run",
        "scores": "the scores are not those of the texts",
    }
)


class Finding(NamedTuple):
    """One thing that an audit has found."""

    kind: str
    """A key of KINDS."""
    what: str
    """What was seen, in one line."""

    @property
    def line(self) -> str:
        """The finding in words."""
        return f"{self.kind}: {KINDS[self.kind]}: {self.what}"
