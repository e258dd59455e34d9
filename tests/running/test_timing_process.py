"""The process that takes the times ends when the time of the run is over."""

import time

import pytest

from dlbench.running import timing_process
from dlbench.system import lifeline, stopping
from dlbench.system.lifeline import python_command


def test_a_time_limit_ends_a_timing_in_the_middle(tmp_path, monkeypatch):
    start = time.monotonic()
    monkeypatch.setattr(stopping, "_BEGUN", start)
    monkeypatch.setattr(lifeline, "tied", lambda *_: python_command("-c", "import time; time.sleep(60)"))
    with pytest.raises(stopping.Stopped, match=stopping.OVER):
        timing_process._run({}, tmp_path, lambda amount: None, lambda line: None, 1.5)
    assert time.monotonic() - start < 20
