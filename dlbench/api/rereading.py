"""What a Python session has read of methods and tasks, and has to read again where files have changed since.

A process of the command line reads each file once, so that a run sees one state of it. A session makes several runs,
and its user edits methods and documents between them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dlbench.registry import method_sources
from dlbench.registry import methods as registry


def reread() -> None:
    """Forget tasks, and plugin files that have changed since they were imported, with the modules beside them."""
    from dlbench.data.loader import load_task
    from dlbench.evaluation.settings import source_sha256

    for name, module in method_sources.plugins():
        then = vars(module).get(registry.READ, {})
        if then != registry.written(then):
            for other in [name, *then]:
                dropped = sys.modules.pop(other, None)
                # Compiled code is taken for that of any file of the same size and second.
                if (compiled := getattr(dropped, "__cached__", None)) is not None:
                    Path(compiled).unlink(missing_ok=True)
    source_sha256.cache_clear()
    load_task.cache_clear()
