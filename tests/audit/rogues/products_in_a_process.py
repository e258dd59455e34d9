"""Lets another process compute."""

# found as: processes

import subprocess
import sys
from dataclasses import dataclass

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def begin(self, prompt):
        subprocess.run([sys.executable, "-S", "-c", "sum(i * i for i in range(10**5))"], check=True)

    def route(self, view):
        return view.layer not in (2, 3)
