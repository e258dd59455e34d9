"""Start dlbench in a process of its own."""

import os
import subprocess
import sys


def start(arguments, **more):
    """Start a command line of dlbench with one thread and no hub; its output is one text.

    Args:
        arguments: after `dlbench`.
        **more: of `subprocess.Popen`.
    """
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "dlbench", *arguments],
        env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more,
    )  # fmt: skip
