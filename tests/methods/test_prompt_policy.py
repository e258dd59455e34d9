"""What is learnt and tuned is learnt under the prompt policy that the run asks for."""

import pytest
import small_model

from dlbench.cli import main
from dlbench.fit import FitProbe
from dlbench.running import method_fitter


@pytest.mark.parametrize("policy", ["full", "routed"])
def test_a_fit_knows_the_policy_of_its_run(tmp_path, monkeypatch, policy):
    asked = []

    class Probe(FitProbe):
        def nll(self, method, texts=None):
            asked.append(self.prompt)
            return super().nll(method, texts)

    monkeypatch.setattr(method_fitter, "FitProbe", Probe)
    model = small_model.save(tmp_path / "tiny")
    command = ["run", "--model", str(model), "--task", "nano_summary", "--limit", "2", "--no-timing"]
    chosen = ["--method", "sleb", "--set", "sleb.texts=2", "--budget", "0.5", "--prompt", policy]
    assert main([*command, *chosen, "--out", str(tmp_path / "out")]) == 0
    assert asked == [policy] * 3  # of four layers the middle two can go: two candidates, then one
