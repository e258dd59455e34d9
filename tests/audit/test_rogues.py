"""The gallery of rogues: what an audit must find, one file each; each is found by its name."""

import functools
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dlbench.audit.isolated.case import Case
from dlbench.audit.isolated.findings import KINDS
from dlbench.audit.isolated.start import audit

ROGUES = sorted((Path(__file__).parent / "rogues").glob("*.py"))
DOCS = Path(__file__).parents[2] / "docs" / "audits.md"
PATIENCE = 12.0
"""Seconds of processor time after which a rogue that does not end is given up."""


def kind_of(rogue):
    """The kind of finding that a rogue says it is."""
    return re.search(r"^# found as: (\S+)$", rogue.read_text(), re.MULTILINE)[1]


@functools.cache
def audits():
    """The findings of all rogues, from two drivers side by side."""
    cases = [Case(str(rogue), {}) for rogue in ROGUES]
    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(lambda some: list(audit(some, patience=PATIENCE)), (cases[::2], cases[1::2]))
        return {Path(one.given).stem: one.findings for half in halves for one in half}


@pytest.mark.slow
@pytest.mark.parametrize("rogue", ROGUES, ids=lambda rogue: rogue.stem)
def test_a_rogue_is_found_by_name(rogue):
    found = audits()[rogue.stem]
    assert kind_of(rogue) in {finding.kind for finding in found}, [finding.line for finding in found]


def test_every_kind_of_finding_has_a_rogue_and_stands_in_the_docs():
    assert len(ROGUES) >= 30
    assert {kind_of(rogue) for rogue in ROGUES} == set(KINDS)
    assert [kind for kind in KINDS if f"| `{kind}` |" not in DOCS.read_text()] == []


HONEST = ("static_skip", "random_skip", "calm", "hidden_router", "flexi_depth", "sequence_router", "self_speculation")
"""A fixed set, noise, exits and a head, gates, adapters with scales, a memory, and drafts."""


@pytest.mark.slow
def test_honest_methods_pass():
    found = {one.given: [finding.line for finding in one.findings] for one in audit([Case(n, {}) for n in HONEST])}
    assert list(found) == list(HONEST) and not any(found.values()), found
