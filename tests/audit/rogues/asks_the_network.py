"""Sends what it sees to another machine."""

# found as: network

import contextlib
import socket
from dataclasses import dataclass

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        with contextlib.suppress(OSError), socket.socket() as other:
            other.settimeout(0.01)
            other.connect(("127.0.0.1", 9))
        return view.layer not in (2, 3)
