"""What `dlbench check --audit` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dlbench.audit.isolated.case import Case
from dlbench.audit.isolated.start import audit
from dlbench.registry import methods as registry


def report(
    methods: Sequence[str], model: str | None, task: str | None, data_dir: str | None, say: Callable[[str], None]
) -> int:
    """Audit methods, each with the parameters that a run takes by default, and print what is found.

    Args:
        methods: names, or paths of plugin files; none is imported here.
        model: what they are audited on; see `AuditBench.of`.
        task: likewise.
        data_dir: likewise.
        say: prints a line.

    Returns:
        The number of audits that found something.
    """
    for given in methods:
        registry.check_name(given)
    failed = 0
    for one in audit([Case(given, {}) for given in methods], model=model, task=task, data_dir=data_dir, variants=True):
        values = ",".join(f"{name}={value}" for name, value in one.params.items())
        spent = f"{one.seconds:.1f} s, {one.processor:.1f} s of processor time"
        say(f"{registry.name_of(one.given)} {values}".strip() + f" ({spent})")
        for finding in one.findings:
            say(f"  FAIL  {finding.line}")
        if not one.findings:
            say("  –     an oracle, which is asked nothing" if one.oracle else "  ok    nothing found")
        failed += bool(one.findings)
    return failed
