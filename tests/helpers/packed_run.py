"""A small run, packed as a submission: a submission of any run follows the same rules but those of the protocol."""

from pathlib import Path

from dlbench.data.task_options import Sources
from dlbench.run.config import RunSpec
from dlbench.run.packing import pack_run
from dlbench.run.planner import Planner
from dlbench.run.runner import Runner
from dlbench.terminal.progress import Progress

PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dlbench.method import Action, Knob, Method, View


@dataclass
class Bumpy(Method):
    """Skip inner layers for tokens whose state is small."""

    knob: ClassVar[Knob | None] = None
    threshold: float = 0.0

    def route(self, view: View) -> Action | Tensor:
        if 0 < view.layer < view.depth - 1:
            return (view.hidden[:, 0] > self.threshold).long() * int(Action.RUN)
        return Action.RUN
'''

def plugin(folder: Path) -> Path:
    """Write a plugin, and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bumpy.py").write_text(PLUGIN)
    return folder / "bumpy.py"


def packed(model: Path, folder: Path, *, methods: tuple[str, ...], **options) -> Path:
    """Run methods on a few documents of nano_math, and return the folder of the submission.

    Args:
        model: folder of the backbone.
        folder: where everything goes.
        methods: by name or path.
        **options: of `RunSpec`.
    """
    chosen = {
        "tasks": ("nano_math",),
        "budgets": (0.5,),
        "limit": 6,
        "sources": Sources(max_new_tokens=8),
        "batch_size": 3,
        "processes": 1,
        "timing": False,
    } | options
    spec = RunSpec(models=(str(model),), methods=methods, out=folder / "run", **chosen)
    spec.check()
    Runner(spec).run()
    planner = Planner(spec, "cpu", Progress(shown=False), 1, str)
    jobs = planner.load()
    planner.settle(jobs)
    return pack_run(spec, jobs, folder / "submission")
