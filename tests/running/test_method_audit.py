"""Official runs audit their methods first, and no method is timed at something else than it was scored at."""

import pytest
import small_model
import tiny_models
from record_samples import sample

from dlbench.audit.isolated.findings import Finding
from dlbench.audit.isolated.start import Audited
from dlbench.cli import main
from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError
from dlbench.evaluation.timing import TimedSetting, attempt
from dlbench.method import Method
from dlbench.models.backbone import wrap
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, Timing
from dlbench.running.config import RunSpec
from dlbench.running.method_audit import audit_methods
from dlbench.running.timing_process import differs

PLUGIN = '''
from dataclasses import dataclass
from dlbench.method import Method

@dataclass
class Mine(Method):
    """Run everything."""

    depth: int = 1

    def route(self, view):
        return True
'''


def test_an_official_run_of_a_method_that_fails_its_audit_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(PLUGIN)
    given, findings = str(tmp_path / "mine.py"), [Finding("weights", "lm_head.weight")]
    spec = RunSpec(methods=("full", given), settings={"mine": {"depth": 2}})

    def audit(cases, *, variants):
        (case,) = cases
        assert case.given == given and case.params == {"depth": 2} and variants
        yield Audited(case.given, case.params, tuple(findings), 1.0, 1.0)

    monkeypatch.setattr("dlbench.running.method_audit.audit", audit)
    with pytest.raises(DlbenchError, match="no official run of mine"):
        audit_methods(spec)
    assert "weights: the backbone's weights are not what they were: lm_head.weight" in capsys.readouterr().err
    findings.clear()
    audit_methods(spec)
    assert "audit of mine: nothing found" in capsys.readouterr().err


ROGUE = '''
from dataclasses import dataclass
import torch
from dlbench.method import Method

@dataclass
class Rogue(Method):
    """Run less where nothing is counted."""

    def route(self, view):
        counted = torch.overrides._get_current_function_mode_stack()
        return view.layer != 1 if counted else view.layer == 0
'''


@pytest.mark.slow
def test_a_row_that_is_timed_at_other_layers_is_left_out(tmp_path, capsys):
    small_model.save(tmp_path / "model")
    (tmp_path / "rogue.py").write_text(ROGUE)
    line = ["run", "--model", str(tmp_path / "model"), "--task", "nano_summary", "--limit", "3", "--processes", "1"]
    line += ["--method", str(tmp_path / "rogue.py"), "--method", "skip_decode", "--set", "skip_decode.share=0.5"]
    assert main([*line, "--max-new-tokens", "24", "--out", str(tmp_path / "out")]) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert "rogue on nano_summary: it runs other layers while it is timed than in its samples: for 3 of 3" in said
    for name, kind in (("records", Record), ("timing", Timing)):
        rows = list(read_lines(tmp_path / "out" / f"{name}.jsonl", kind))
        methods = {row.method.name if kind is Record else row.method for row in rows}
        assert methods == {"full", "skip_decode"}  # which spends by the limit of its text, and is timed so


class ByLimit(Method):
    """Spends by the limit of its text."""

    def route(self, view):
        return (view.limit > 20) | (view.layer != 1)


@pytest.mark.parametrize("batch", [1, 16])
def test_what_is_timed_sees_the_limits_of_the_run(batch):
    """Texts are timed for a few tokens only; routes and near ties are told."""
    prompts = [Request(f"d{i}", ids, 4) for i, ids in enumerate(tiny_models.prompts(16))]
    engine = Engine(wrap(tiny_models.build("llama", depth=3), name="tiny"), metered=False)
    facts = {"key": "0" * 32, "name": "full", "budget": None, "seed": 0, "forwards": 3.0, "kv": "project"}
    limits = [40 if i % 2 else 10 for i in range(16)]
    items = [TimedSetting(facts, engine, prompts, method, limits) for method in (None, ByLimit())]
    assert attempt(items, batch, routed=False, task="toy")
    routes = items[1].routes()
    assert len(routes) == batch and set(routes) == {f"d{i}" for i in range(batch)}
    for i in range(batch):
        ran = {route for route, _ in routes[f"d{i}"]["routes"]}
        assert ran == ({"333"} if i % 2 else {"303"})
        assert sum(times for _, times in routes[f"d{i}"]["routes"]) == 3


@pytest.mark.parametrize(
    ("timed", "ties", "tie", "other"),
    [
        ([["33", 2]], (), None, False),
        ([["33", 1], ["03", 1]], (), None, True),
        ([["33", 1], ["03", 1]], ((2, 1e-4),), None, False),
        ([["33", 1], ["03", 1]], (), 2, False),
        ([["33", 1], ["03", 1]], ((3, 1e-4),), 3, True),
    ],
)
def test_a_near_tie_excuses_what_follows_it(timed, ties, tie, other):
    scored = sample("a", layers=(2, 2, 1), routes=(("33", 2), ("30", 1)), near_ties=ties)
    assert differs(scored, {"routes": timed, "tie": tie}) is other
