"""Signals of schedulers, and time limits."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dlbench.errors import DlbenchError
from dlbench.system import stopping


def test_the_first_signal_is_raised_and_the_rest_are_ignored():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(stopping.Stopped, match="stopped by SIGUSR1"), stopping.by_signals() as received:
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # while it ends
            time.sleep(0.01)
    assert received == ["stopped by SIGUSR1"] and signal.getsignal(signal.SIGTERM) == before


BUSY = """
import ctypes, os, threading
from dlbench.system import stopping

stopping.PATIENCE = 0.3
with stopping.by_signals():
    threading.Timer(0.2, os.kill, (os.getpid(), 15)).start()
    ctypes.CDLL(None).system(b"sleep 5")  # waits in C: no handler of Python's runs meanwhile
"""


@pytest.mark.skipif(sys.platform != "linux", reason="libc as on Linux")
def test_a_library_that_does_not_return_holds_nothing_up():
    start = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", BUSY], stderr=subprocess.PIPE, text=True) as busy:
        assert busy.stderr is not None
        assert busy.wait(60) == 143 and time.monotonic() - start < 4
        assert busy.stderr.readline() == "dlbench: stopped by SIGTERM; what was finished is kept\n"
        busy.stderr.close()


@pytest.mark.parametrize(("text", "wanted"), [("3h50m", 13_800), ("90m", 5_400), ("45", 45), ("1d1.5h", 91_800)])
def test_time_limits_are_read(text, wanted):
    assert stopping.seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "soon", "3x", "0", "-5", "m3", "nan", "inf", "3h 50"])
def test_other_time_limits_are_refused(text):
    with pytest.raises(DlbenchError, match="give a duration such as 3h50m"):
        stopping.seconds(text)


def test_a_time_limit_counts_from_the_start_of_the_process(monkeypatch):
    monkeypatch.setattr(stopping, "_BEGUN", time.monotonic() - 100)
    assert stopping.left(None) is None and not stopping.is_over(None)
    assert 899 < stopping.left(1000) <= 900
    stopping.check_time(1000)
    with pytest.raises(stopping.Stopped, match=stopping.OVER):
        stopping.check_time(100)
