"""dlbench: a benchmark suite for dynamic-depth inference in decoder-only language models.

Importing the package costs nothing: no torch, no transformers, no lm-eval. Import the module you need.
"""

import os

__all__ = ["__version__"]

__version__ = "0.1.0"

# In a checkout the subpackages `methods`, `tasks` and `leaderboard` stand beside this folder, not in it. An editable
# install knows that; a wheel installed elsewhere, or no install at all, does not, and Python started inside the
# checkout finds this folder first. Looking beside it as well keeps all three ways of starting alike.
_here = os.path.dirname(os.path.abspath(__file__))
_root = os.path.dirname(_here)
if not os.path.isdir(os.path.join(_here, "methods")) and os.path.isfile(os.path.join(_root, "pyproject.toml")):
    __path__.append(_root)
del _here, _root
