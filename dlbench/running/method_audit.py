"""Audit the methods of an official run before it begins; see docs/audits.md."""

from __future__ import annotations

import sys

from dlbench.audit.isolated.case import Case
from dlbench.audit.isolated.start import audit
from dlbench.errors import DlbenchError
from dlbench.registry import methods as registry
from dlbench.running.config import RunSpec


def audit_methods(spec: RunSpec) -> None:
    """Audit all methods that are not built in, on a tiny model, with the run's parameters and their variants.

    Raises:
        DlbenchError: something was found.
    """
    others = [given for given in spec.methods if registry.locate(given).origin != "built-in"]
    found = []
    for one in audit(
        [Case(given, dict(spec.settings.get(registry.name_of(given), {}))) for given in others], variants=True
    ):
        name = registry.name_of(one.given)
        for finding in one.findings:
            print(f"audit of {name}: {finding.line}", file=sys.stderr)
        if one.findings or one.oracle:  # oracles are no part of an official run
            found.append(name)
        elif spec.progress != "quiet":
            print(f"audit of {name}: nothing found ({one.processor:.1f} s of processor time)", file=sys.stderr)
    if found:
        raise DlbenchError(
            f"no official run of {', '.join(dict.fromkeys(found))}: the audit found something; docs/audits.md says "
            "what it means, and `dlbench check METHOD --audit` repeats it"
        )
