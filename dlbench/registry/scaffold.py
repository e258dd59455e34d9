"""The files of a new method: a package that can be installed, or one file among the built-in methods."""

from __future__ import annotations

import keyword
import re
import shlex
import sys
from pathlib import Path
from string import Template

from dlbench.errors import DlbenchError
from dlbench.registry.method_sources import clashes, named
from dlbench.system.paths import expanded

_METHOD = '''\
"""$words: say here what the method decides by, and cite its paper."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dlbench.method import Knob, Method, View


@dataclass
class $title(Method):
    """Run a layer where it changes the state much: skip it while the state resembles the layer's last input."""

    knob: ClassVar[Knob | None] = Knob("threshold", -1.01, 1.01)

    threshold: float = 0.95
    """Cosine of the state and the input of the last layer that ran, up to which the next layer runs."""

    def route(self, view: View) -> bool | Tensor:
        if view.before is None or view.layer == view.depth - 1:
            return True
        cosine = (view.hidden * view.before).sum(-1) / (view.hidden.norm(dim=-1) * view.before.norm(dim=-1))
        return ~view.at_least(cosine, self.threshold)
'''

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "The method $name for dlbench"
requires-python = ">=3.11"
dependencies = ["dlbench"]

[project.entry-points."dlbench.methods"]
$name = "$module.$name"

[tool.setuptools]
packages = ["$module"]
"""

_TEST = '''\
"""The contract of the method, clause by clause, as `dlbench check $name` tries it."""

pytest_plugins = ["dlbench.testing"]
dlbench_methods = ["$name"]


def test_contract(contract):
    contract()
'''

_README = """\
# $name

A method for dlbench: `$module/$name.py` decides which tokens run which layer.

```sh
pip install -e .
dlbench check $name
dlbench run --method $name --method static_skip --limit 20
python -m pytest
```

`dlbench check` says what breaks the contract of a method, and how to mend it. `dlbench run` writes a table and a board
beside the controls; without `--limit` it takes the default sample, with `--limit all` every document.
"""


def package(name: str, to: Path) -> list[Path]:
    """Write a package; returns its files, `pyproject.toml` first.

    Raises:
        DlbenchError: the name cannot be a method's or is taken, or the folder exists.
    """
    _check(name)
    if name in sys.stdlib_module_names:
        raise DlbenchError(f"method {name!r}: Python has a module of that name; take another name")
    folder = expanded(to, "--to") / name
    if folder.exists():
        raise DlbenchError(f"{folder} exists already; take another name, or another folder by --to")
    files = {
        "pyproject.toml": _PYPROJECT,
        f"{name}/__init__.py": '"""The method $name."""\n',
        f"{name}/{name}.py": _METHOD,
        f"tests/test_{name}.py": _TEST,
        "README.md": _README,
    }
    return [_write(folder / path, text, name) for path, text in files.items()]


def built_in(name: str, to: Path) -> list[Path]:
    """Write the method's file into `methods/` of a checkout.

    Raises:
        DlbenchError: the name cannot be a method's or is taken, or there is no such folder.
    """
    _check(name)
    folder = expanded(to, "--to") / "methods"
    if not (folder / "full.py").is_file():
        raise DlbenchError(
            f"{folder} is not the methods/ of dlbench; run this in a checkout, or give the checkout by --to"
        )
    return [_write(folder / f"{name}.py", _METHOD, name)]


def _check(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise DlbenchError(f"method {name!r}: a name has lower-case letters, digits and _, and begins with a letter")
    taken = named().get(name)
    if taken is not None or name in clashes() or name in ("core", "all", "dlbench"):
        where = f" ({taken.where})" if taken is not None else ""
        raise DlbenchError(f"method {shlex.quote(name)}: that name is taken{where}; take another one")


def _write(path: Path, text: str, name: str) -> Path:
    words = name.replace("_", " ").strip()
    values = {
        "name": name,
        "module": name,
        "distribution": "dlbench-" + name.replace("_", "-").strip("-"),
        "words": words.capitalize(),
        "title": "".join(part.capitalize() for part in name.split("_")) or "Method",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Template(text).substitute(values), encoding="utf-8")
    return path
