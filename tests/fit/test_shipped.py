"""The fits that ship for SmolLM2 on `pocket`: those of another source would be passed over without a word."""

import json
from types import SimpleNamespace

import pytest

from dlbench import fit
from dlbench.data.document import documents_sha256
from dlbench.data.loader import load_task
from dlbench.evaluation import settings
from dlbench.evaluation.settings import Conditions, variants
from dlbench.registry import methods as registry
from dlbench.running.config import RunSpec

NANO, POCKET = fit.shipped_folders()
SHIPPED = {path.parent.name: json.loads(path.read_text()) for path in sorted(POCKET.glob("*/fit.json"))}
FILE = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
IN_MEMORY = "781da3c73b0ae736f99e2dabcdb8947e1e928b2db065910c9c891668120ec951"
"""Hashes of SmolLM2's file, and of its tensors in memory."""


def key_of(facts):
    """The key of a fit on SmolLM2, without SmolLM2: its tokenizer counts only in how many documents a fit takes."""
    backbone = SimpleNamespace(sha256=FILE, weights_sha256=IN_MEMORY, dtype="float32", model=None)
    spec, task, cls = RunSpec(), load_task(facts["task"]), registry.load(facts["method"])
    conditions = Conditions(backbone, task, documents_sha256(task.documents("test")), spec.prompt, spec.kv)
    (params,) = (one for one in variants(cls, {}) if one.items() <= facts["params"].items())
    method, documents = cls.from_params(params), documents_sha256(task.documents("fit"))
    cut = {"learn": facts["learnt_from"]} if method.learns else {}
    return conditions.fit_key(facts["method"], method, facts["budget"], spec.seed, documents, cut)


@pytest.mark.parametrize("task", ["pocket_data2text", "pocket_summary"])
def test_a_run_finds_them(task, monkeypatch):
    monkeypatch.setattr(settings, "wishes", lambda model: SimpleNamespace(digest=""))
    of_task = {key: facts for key, facts in SHIPPED.items() if facts["task"] == task}
    routers = {facts["budget"] for facts in of_task.values() if facts["params"].get("fixed_input") is False}
    assert len(routers) == 5
    for key, facts in of_task.items():
        assert key_of(facts) == key, f"{facts['method']} at {facts['budget']} on {task}: run ci/shipped-fits pocket"
        method, loaded = fit.load_artifact(POCKET / key, registry.load(facts["method"]))
        assert method.params() == facts["params"] and loaded.budget == facts["budget"]
