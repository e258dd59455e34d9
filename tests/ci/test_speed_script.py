"""`ci/speed.py`: two commits by turns, and which ratios moved beyond noise. The benchmark is a fake one."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
SPEED = SimpleNamespace(**runpy.run_path(str(ROOT / "ci" / "speed.py")))
BENCH = """
import json, pathlib, sys
log = pathlib.Path({log!r})
names = log.read_text().split() if log.exists() else []
here = pathlib.Path.cwd()
spec = json.loads((here / "ratios.json").read_text())
names.append(here.name)
log.write_text(" ".join(names))
(log.parent / "asked.json").write_text(json.dumps(sys.argv[1:]))
if spec.get("broken"):
    sys.exit("no such part")
nth = names.count(here.name) - 1
ratios = {{name: values[nth % len(values)] for name, values in spec["ratios"].items()}}
content = {{"machine": {{"processor": spec.get("processor", "a processor")}}, "ratios": ratios}}
pathlib.Path(sys.argv[sys.argv.index("--out") + 1]).write_text(json.dumps(content))
"""


class Checkout:
    """A repository whose `dlbench bench` writes what ratios.json says."""

    def __init__(self, folder):
        self.folder, self.log = folder / "checkout", folder / "log"
        (self.folder / "dlbench").mkdir(parents=True)
        (self.folder / "dlbench" / "__init__.py").touch()
        (self.folder / "dlbench" / "__main__.py").write_text(BENCH.format(log=str(self.log)))
        (self.folder / ".gitignore").write_text("ignored\n")
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments):
        named = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *named, *arguments], cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout

    def write(self, **spec):
        (self.folder / "ratios.json").write_text(json.dumps(spec))

    def commit(self, tag, **spec):
        self.write(**spec)
        self.git("add", "--all")
        self.git("commit", "-q", "-m", tag)
        self.git("tag", tag)

    @property
    def order(self):
        return self.log.read_text().split()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    made = Checkout(tmp_path)
    monkeypatch.setitem(SPEED.main.__globals__, "ROOT", made.folder)
    return made


def compare(head, pairs=8, base="old", level=0.99, options=(), out=None):
    sides = SPEED.committed(base), SPEED.working_tree() if head is None else SPEED.committed(head)
    return SPEED.main(*sides, pairs, level, options, out)


def test_both_take_turns_and_each_pair_begins_with_the_other(checkout):
    checkout.commit("old", ratios={"decode": [2.0]})
    checkout.commit("new", ratios={"decode": [2.0, 2.1]})
    assert compare("new", pairs=3, options=["--only", "decode"]) == 0
    assert checkout.order == ["base", "head", "head", "base", "base", "head"]
    asked = json.loads((checkout.log.parent / "asked.json").read_text())
    assert asked[:5] == ["bench", "--quick", "--only", "decode", "--out"]


def test_what_got_worse_in_every_pair_is_exit_code_1(checkout, capsys, tmp_path):
    checkout.commit("old", ratios={"slower": [2.0], "faster": [1.0], "noisy": [1.0], "gone": [1.0]})
    noisy = [0.9, 1.2, 1.0, 0.8, 1.3, 0.9, 1.1, 1.0]
    checkout.commit("new", ratios={"slower": [1.8, 1.7], "faster": [1.5], "noisy": noisy, "further": [1.0]})
    out = tmp_path / "speed.json"
    assert compare("new", out=out) == 1
    said = capsys.readouterr().out
    assert "processor: a processor\npairs of runs: 8\n" in said
    assert "| slower | 2.000 | 1.750 | -12.5 % | -15.0 % to -10.0 % | WORSE |" in said
    assert "| faster | 1.000 | 1.500 | +50.0 % | +50.0 % to +50.0 % | better |" in said
    assert "| noisy | 1.000 | 1.000 | +0.0 % | -20.0 % to +30.0 % | within noise |" in said
    assert "only in base: gone\n" in said and "only in head: further\n" in said
    written = json.loads(out.read_text())
    assert written["ratios"]["slower"]["verdict"] == "worse" and len(written["runs"]["head"]) == 8
    assert written["not_compared"] == {"base": ["gone"], "head": ["further"], "some runs": []}


def test_what_got_better_is_exit_code_0(checkout):
    checkout.commit("old", ratios={"decode": [1.0]})
    checkout.commit("new", ratios={"decode": [1.01]})
    assert compare("new") == 0


def test_few_pairs_cannot_tell(checkout, capsys):
    checkout.commit("old", ratios={"decode": [2.0]})
    checkout.commit("new", ratios={"decode": [1.0]})
    assert compare("new", pairs=7) == 0
    said = capsys.readouterr().out
    assert "7 pairs cannot tell at 99 %; 8 could" in said and "| -50.0 % | – | cannot tell |" in said
    assert compare("new", pairs=6, level=0.95) == 1


@pytest.mark.parametrize(("pairs", "out_of_line", "verdict"), [(11, 1, "within noise"), (12, 1, "WORSE")])
def test_one_pair_out_of_line_takes_more_pairs(pairs, out_of_line, verdict):
    head = (*[1.1] * out_of_line, *[0.9] * (pairs - out_of_line))
    assert SPEED.Moved("decode", (1.0,) * pairs, head, 0.99).verdict == verdict


def test_the_interval_misses_the_median_as_often_as_it_says():
    import numpy as np

    rng = np.random.default_rng(0)
    for pairs, level in ((8, 0.99), (12, 0.99), (9, 0.9)):
        heads = np.exp(rng.standard_t(2, size=(3000, pairs)))
        told = [SPEED.Moved("decode", (1.0,) * pairs, tuple(head), level).verdict != "within noise" for head in heads]
        assert np.mean(told) <= 1 - level + 0.006


def test_the_working_tree_counts_with_what_is_not_committed(checkout, capsys):
    checkout.commit("old", ratios={"decode": [1.0]})
    checkout.write(ratios={"decode": [3.0]})
    (checkout.folder / "untracked.py").touch()
    (checkout.folder / "ignored").touch()
    before = checkout.git("status", "--porcelain")
    side = SPEED.working_tree()
    copy = SPEED.copied(side, checkout.folder.parent / "copy")
    assert (copy / "untracked.py").is_file() and not (copy / "ignored").exists()
    assert compare(None, pairs=1) == 0
    assert checkout.git("status", "--porcelain") == before == " M ratios.json\n?? untracked.py\n"
    said = capsys.readouterr().out
    assert "head: the working tree\n" in said and "| decode | 1.000 | 3.000 | +200.0 % |" in said


def test_a_commit_beside_itself_is_named_as_such(checkout, capsys):
    checkout.commit("old", ratios={"decode": [1.0]})
    assert compare("old", pairs=1) == 0
    assert "both are the same files: what moves is noise" in capsys.readouterr().out


def test_an_unknown_commit_is_exit_code_2(checkout, capsys):
    checkout.commit("old", ratios={"decode": [1.0]})
    with pytest.raises(SystemExit) as ended:
        compare("newer")
    assert ended.value.code == 2
    assert "'newer' is no commit, branch or tag of this repository" in capsys.readouterr().err
    assert not checkout.log.exists()


def test_a_benchmark_that_fails_is_exit_code_2(checkout, capsys):
    checkout.commit("old", ratios={"decode": [1.0]})
    checkout.commit("new", broken=True)
    with pytest.raises(SystemExit) as ended:
        compare("new")
    assert ended.value.code == 2
    assert "the benchmark of head ended with 1:\nno such part" in capsys.readouterr().err


def test_nothing_in_common_is_exit_code_2(checkout, capsys):
    checkout.commit("old", ratios={"decode": [1.0]})
    checkout.commit("new", ratios={"step": [1.0]})
    with pytest.raises(SystemExit) as ended:
        compare("new", pairs=1)
    assert ended.value.code == 2 and "nothing could be compared" in capsys.readouterr().err


def test_two_processors_are_named(checkout, capsys):
    checkout.commit("old", ratios={"decode": [1.0]}, processor="one")
    checkout.commit("new", ratios={"decode": [1.0]}, processor="another")
    assert compare("new", pairs=1) == 0
    said = capsys.readouterr().out
    assert "processor: another; one\n" in said and "the processor changed between runs" in said


def test_ctrl_c_prints_the_pairs_that_are_complete(checkout, capsys, monkeypatch):
    checkout.commit("old", ratios={"decode": [1.0]})
    checkout.commit("new", ratios={"decode": [1.5]})
    real, calls = SPEED.benched, []

    def interrupted(folder, options):
        calls.append(folder)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(folder, options)

    monkeypatch.setitem(SPEED.main.__globals__, "benched", interrupted)
    assert compare("new") == 130
    said = capsys.readouterr().out
    assert "pairs of runs: 1\n" in said and "| decode | 1.000 | 1.500 |" in said
    assert not calls[0].exists()


def test_the_command_line_names_what_is_wrong(checkout, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed.py", "--pairs", "0"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "ci" / "speed.py"), run_name="__main__")
    assert ended.value.code == 2 and "--pairs is at least 1" in capsys.readouterr().err
