"""Progress in words, where there is no terminal."""

import time

from dlbench.terminal import progress
from dlbench.terminal.progress import Progress


def test_work_that_was_reported_is_reported_to_its_end(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.2)
    with Progress(True, "lines") as shown:
        with shown.bar("decode", 3) as done:
            done(1)
            time.sleep(0.5)
            done(2)
        monkeypatch.setattr(progress, "EVERY", 30.0)
        with shown.bar("time", 2) as done:
            done(2)
    lines = capsys.readouterr().err.splitlines()
    assert set(lines[:-1]) == {"decode: 1 of 3"} and lines[-1] == "decode: 3 of 3"
