"""Counts its questions in a global."""

# found as: state

import itertools
from dataclasses import dataclass

from dlbench.method import Method

ASKED = itertools.count()


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        return view.layer not in ((2, 3) if next(ASKED) < 100 else (3, 4))
