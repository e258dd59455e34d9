"""Names of the KV policies: what a run can do with the keys and values of tokens that skipped a layer.

A policy is one file in `dlbench/engine/kv/policies/`, and its name is the file's name. The folder is listed, nothing is
imported, so the command line knows the names without torch; the engine imports the file of the policy that runs.
"""

from __future__ import annotations

from pathlib import Path

from dlbench.terminal.suggest import unknown

FOLDERS = [str(Path(__file__).parent.parent / "engine/kv/policies")]
"""Where policies are looked for; also the search path of the package `dlbench.engine.kv.policies`."""


def names() -> tuple[str, ...]:
    """Names of all policies, sorted."""
    return tuple(sorted(path.stem for folder in FOLDERS for path in Path(folder).glob("[!_]*.py")))


def check(name: str) -> None:
    """Check that there is such a policy.

    Raises:
        DlbenchError: there is none.
    """
    if name not in (known := names()):
        raise unknown("kv policy", name, known)
