import errno
import json
import subprocess
import sys
import textwrap
import time

import pytest
from not_run import asked_of

import dlbench
from dlbench import cli
from dlbench.errors import DlbenchError
from dlbench.models import catalog
from dlbench.models.families import FAMILIES
from dlbench.records.run_folder import RUN_FILE
from dlbench.registry import methods as registry
from dlbench.running import config as spec


@pytest.fixture
def ran(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return asked_of(monkeypatch)


@pytest.fixture
def plugin(tmp_path):
    def write(source, name="mine.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(source))
        return str(path)

    yield write
    sys.modules.pop("dlbench_plugin_mine", None)


MINE = '''
    from dataclasses import dataclass
    from typing import Literal
    from dlbench.method import Action, Method, View

    @dataclass
    class Mine(Method):
        """Mine."""
        share: float = 0.5
        rows: tuple[int, ...] = ()
        mode: Literal["a", "b"] = "a"

        def __post_init__(self) -> None:
            if not 0 < self.share <= 1:
                raise ValueError(f"share must lie in (0, 1], not {self.share}")

        def route(self, view: View) -> Action:
            return Action.RUN
'''


def test_without_options_everything_of_nano_runs(ran):
    assert cli.main(["run"]) == 0
    assert ran == [spec.RunSpec()]
    assert ran[0].methods == registry.CORE and len(ran[0].tasks) == 4


def test_options_reach_the_run(ran, plugin):
    path = plugin(MINE)
    line = (
        f"run --model nano-half --task nano_math --task nano --method full --method {path} --budget 0.5 --budget 1 "
        "--set mine.share=0.25 --set mine.rows=[1,2] --set mine.mode=b --limit all --out there --batch-size 3 --seed 9 "
        "--device cpu --dtype bfloat16 --prompt routed --kv project --kernels stock --processes 2 --refit --no-timing "
        "--fit-tokens 500"
    )
    assert cli.main(line.split()) == 0
    (asked,) = ran
    assert asked.models == ("nano-half",) and asked.methods == ("full", path) and asked.budgets == (0.5, 1.0)
    assert asked.tasks[0] == "nano_math" and len(asked.tasks) == 4
    assert asked.settings == {"mine": {"share": 0.25, "rows": [1, 2], "mode": "b"}}
    assert (asked.limit, str(asked.out), asked.batch_size, asked.seed, asked.device) == (None, "there", 3, 9, "cpu")
    assert (asked.dtype, asked.prompt, asked.kv, asked.processes) == ("bfloat16", "routed", "project", 2)
    assert (asked.kernels, asked.fit, asked.timing, asked.fit_tokens) == ("stock", True, False, 500)


BAD = [
    ("--method ful", "unknown method 'ful': did you mean full"),
    ("--method nowhere/x.py", "no method file"),
    ("--task nano_mth", "unknown task 'nano_mth': did you mean nano_math"),
    ("--task nowhere.yaml", "no task file"),
    ("--model nanoo", "unknown model 'nanoo': did you mean nano"),
    ("--model ./nowhere", "no model folder ./nowhere"),
    ("--set full.x=1", "unknown parameter 'x' of method 'full'"),
    ("--set ful.x=1", "unknown method 'ful' in a setting: did you mean full"),
    ("--set full=1", "write NAME.PARAM=VALUE"),
    ("--set calm.threshold=NaN", "give a finite number"),
    ("--set calm.threshold=0.5 --set calm.threshold=0.6", "set twice"),
    ("--set calm.treshold=0.5", "did you mean threshold"),
    ("--set calm.threshold=9", "refuses threshold=9: threshold must lie in"),
    ("--set calm.threshold=high", 'calm.threshold="high": Input should be a valid number'),
    ("--budget 0", "budget 0.0: give a share"),
    ("--budget 2", "budget 2.0: give a share"),
    ("--budget nan", "budget nan: give a share"),
    ("--budget half", "or `auto`"),
    ("--batch-size 0", "batch size 0: give at least 1"),
    ("--batch-size many", "batch size 'many': give a number, or `auto`"),
    ("--limit -1", "limit -1: give at least 1"),
    ("--limit 0", "limit 0: give at least 1"),
    ("--limit some", "give a number, or `all`"),
    ("--processes 0", "0 processes: give at least 1"),
    ("--seed -1", "seed -1: give a number"),
    ("--dtype float23", "unknown dtype 'float23': did you mean float32"),
    ("--prompt ful", "unknown prompt policy 'ful': did you mean full"),
    ("--kernels stok", "unknown kind of kernels 'stok': did you mean stock"),
    ("--kv projekt", "unknown kv policy 'projekt': did you mean project"),
    ("--method hidden_router --kv recompute", "method 'hidden_router' does not support kv policy 'recompute'"),
    ("--device gpu", "unknown device 'gpu'"),
    ("--device cuda:99", "device 'cuda:99' is not on this machine: there is"),
    ("--metod full", "No such option: --metod"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[options for options, _ in BAD])
def test_bad_input_is_one_line_and_leaves_nothing_behind(ran, capsys, tmp_path, options, message):
    assert cli.main(["run", *options.split()]) == 2
    out, err = capsys.readouterr()
    assert message in err and err.startswith("dlbench: ") and err.count("\n") == 1
    assert out == "" and ran == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("methods", ["", "--method full --method static_skip --method oracle"])
def test_what_no_policy_makes_a_difference_to_runs_under_all(ran, methods):
    assert cli.main(["run", "--kv", "recompute", *methods.split()]) == 0
    assert ran[0].kv == "recompute"


def test_a_broken_plugin_is_one_line(ran, capsys, plugin):
    assert cli.main(["run", "--method", plugin("x = 1\nimport nowhere_at_all\n")]) == 2
    err = capsys.readouterr().err
    assert "mine.py, line 2: ModuleNotFoundError" in err and err.count("\n") == 1 and ran == []


def test_one_method_twice_is_refused(ran, capsys, plugin, tmp_path):
    (tmp_path / "b").mkdir()
    assert cli.main(["run", "--method", plugin(MINE), "--method", plugin(MINE, "b/mine.py")]) == 2
    assert "'mine' is given twice" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["file", "foreign", "file/under"])
def test_a_folder_that_is_not_ours_is_left_alone(ran, capsys, tmp_path, name):
    (tmp_path / "file").write_text("x")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["run", "--method", "full", "--out", name]) == 2
    err = capsys.readouterr().err
    assert f"--out {name}" in err and err.count("\n") == 1
    assert ran == [] and sorted(tmp_path.rglob("*")) == before


def test_an_unwritable_folder_is_told(ran, capsys):
    # Not even root can make a folder there.
    if not spec.Path("/proc/self").is_dir():
        pytest.skip("no /proc on this system")
    assert cli.main(["run", "--method", "full", "--out", "/proc/self/dlbench"]) == 2
    assert "--out /proc/self/dlbench cannot be written" in capsys.readouterr().err


def test_a_run_of_ours_is_continued(ran, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / RUN_FILE).write_text("{}")
    assert cli.main(["run", "--method", "full", "--out", "old"]) == 0
    assert len(ran) == 1


def fails(error):
    def execute(asked):
        raise error

    return execute


def test_an_interrupted_run_says_how_to_go_on(ran, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["dlbench.running.runner"], "execute", fails(KeyboardInterrupt()))
    assert cli.main(["run", "--method", "full"]) == 130
    assert capsys.readouterr().err == "dlbench: interrupted; the same command continues where it stopped\n"


@pytest.mark.parametrize("debug", [False, True])
def test_a_fault_of_ours_is_one_line_unless_asked_for_more(ran, capsys, monkeypatch, debug):
    monkeypatch.setattr(sys.modules["dlbench.running.runner"], "execute", fails(RuntimeError("broken\npipe")))
    assert cli.main(["run", "--method", "full", *["--debug"] * debug]) == 1
    err = capsys.readouterr().err
    assert "unexpected RuntimeError: broken pipe" in err
    assert ("Traceback" in err) == debug and (err.count("\n") == 1) == (not debug)


@pytest.mark.parametrize(("place", "said"), [(None, "the output"), ("/data/x.jsonl", "/data/x.jsonl")])
def test_what_the_system_refuses_is_no_fault_of_ours(ran, capsys, monkeypatch, place, said):
    full = OSError(errno.ENOSPC, "No space left on device", place)
    monkeypatch.setattr(sys.modules["dlbench.running.runner"], "execute", fails(full))
    assert cli.main(["run", "--method", "full"]) == 2
    assert capsys.readouterr().err == f"dlbench: {said}: No space left on device\n"


def test_an_error_for_people_keeps_its_exit_code(ran, capsys, monkeypatch):
    damaged = fails(DlbenchError("the weights are damaged"))
    monkeypatch.setattr(sys.modules["dlbench.running.runner"], "execute", damaged)
    assert cli.main(["run", "--method", "full"]) == 2
    assert capsys.readouterr().err == "dlbench: the weights are damaged\n"


def test_a_board_needs_runs(capsys, tmp_path):
    assert cli.main(["board", str(tmp_path), "--out", str(tmp_path / "site")]) == 2
    assert "holds no records.jsonl" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_board_of_no_record_is_refused(tmp_path, capsys):
    (tmp_path / "records.jsonl").touch()
    assert cli.main(["board", str(tmp_path), "--out", str(tmp_path / "site")]) == 2
    assert "records.jsonl holds no record, so there is nothing to show" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("what", ["methods", "tasks", "models"])
def test_lists_are_for_people_and_programs(capsys, what):
    assert cli.main(["list", what]) == 0
    shown = capsys.readouterr().out
    assert cli.main(["list", what, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed and all(entry["name"] in shown for entry in listed)


def test_models_are_listed_with_families_and_dtypes(capsys):
    assert cli.main(["list", "models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed if entry["kind"] == "embedded"] == list(catalog.MODELS)
    assert {entry["name"] for entry in listed if entry["kind"] == "family"} == set(FAMILIES)
    assert {tuple(entry["dtypes"]) for entry in listed} == {(*catalog.DTYPES, "int8", "auto")}
    assert all(entry["give"].startswith("--model ") for entry in listed)
    assert cli.main(["list", "models"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in (*catalog.DTYPES, "int8", "ORG/NAME@REVISION", "any other decoder"))
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["list"], ["run", "--help"], ["bench", "--help"], ["train", "--help"]]
)
def test_help_is_shown(capsys, arguments):
    assert cli.main(arguments) == 0
    assert "Usage: dlbench" in capsys.readouterr().out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dlbench {dlbench.__version__}\n"


def test_models_and_dtypes_are_those_of_the_backbones():
    from dlbench.models import loading

    assert set(catalog.MODELS) == set(loading.EMBEDDED)
    assert set(catalog.DTYPES) == set(loading.TORCH_DTYPES)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["bench", "--help"],
        ["train", "--help"],
        ["list", "methods"],
        ["list", "tasks"],
        ["list", "models"],
        ["--version"],
    ],
)
def test_starting_takes_a_moment_and_no_torch(arguments):
    code = (
        "import sys; from dlbench.cli import main; main(sys.argv[1:]); "
        "print(*{'torch', 'transformers', 'lm_eval', 'datasets', 'numpy', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    walls = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        walls.append(time.perf_counter() - start)
        assert done.stderr.strip() == ""
    # 0.1 to 0.2 s on a quiet machine; the bound is for busy ones.
    assert min(walls) < 2
