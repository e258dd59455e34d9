"""dlbench: a benchmark suite for dynamic-depth inference in decoder-only language models.

From Python, `dlbench.run` is the command `dlbench run`, `dlbench.evaluate` a method on texts of one's own, and
`dlbench.load` the results of a run folder. Importing the package costs nothing: no torch, no transformers, no lm-eval;
these are imported when one of the functions is first asked for.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlbench.api.results import Results, load
    from dlbench.api.runs import run
    from dlbench.api.texts import evaluate

__all__ = ["Results", "__version__", "evaluate", "load", "run"]

__version__ = "0.1.0"

# In a checkout the subpackages `methods`, `tasks` and `leaderboard` stand beside this folder, not in it. An editable
# install knows that; a wheel installed elsewhere, or no install at all, does not, and Python started inside the
# checkout finds this folder first. Looking beside it as well keeps all three ways of starting alike.
_here = os.path.dirname(os.path.abspath(__file__))
_root = os.path.dirname(_here)
if not os.path.isdir(os.path.join(_here, "methods")) and os.path.isfile(os.path.join(_root, "pyproject.toml")):
    __path__.append(_root)
del _here, _root


_API = {"run": "runs", "evaluate": "texts", "load": "results", "Results": "results"}


def __getattr__(name: str) -> object:
    if name not in _API:
        raise AttributeError(f"module 'dlbench' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"dlbench.api.{_API[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_API])
