"""KV policies, one class per file; the file's name is the policy's name (see `dlbench.registry.kv_policies`)."""

from __future__ import annotations

import importlib

from dlbench.engine.kv.policy import KVPolicy
from dlbench.errors import DlbenchError
from dlbench.registry import kv_policies

__path__ = kv_policies.FOLDERS


def load(name: str) -> type[KVPolicy]:
    """Import a policy's file and return its class.

    Raises:
        DlbenchError: there is no such policy, or its file does not define exactly one.
    """
    kv_policies.check(name)
    module = importlib.import_module(f"{__name__}.{name}")
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, KVPolicy) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        listed = ", ".join(value.__name__ for value in classes) or "none"
        raise DlbenchError(
            f"kv policy {name!r}: {module.__file__} must define exactly one class that derives from KVPolicy, "
            f"but it defines {listed}"
        )
    return classes[0]
