"""Commands that end where the work would begin."""

import sys
import types


def asked_of(monkeypatch):
    """Replace the runner and the loading of tasks; gives what would have been run."""
    asked = []
    monkeypatch.setitem(sys.modules, "dlbench.running.runner", types.SimpleNamespace(execute=asked.append))
    monkeypatch.setattr("dlbench.data.loader.load_task", lambda *_: types.SimpleNamespace(is_loglikelihood=False))
    return asked
