"""What `ci/check --quick` chooses to run."""

import json
import re
import runpy
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
QUICK = SimpleNamespace(**runpy.run_path(str(ROOT / "ci" / "quick_tests.py")))
SOURCES = {
    "tests/engine/test_one.py": "from tiny_models import tiny\n",
    "tests/engine/test_two.py": "import torch\n",
    "tests/stats/test_three.py": "import tiny_models_of_another_kind\n",
    "tests/leaderboard/test_documented.py": "",
}


@pytest.mark.parametrize(
    ("changed", "ranks"),
    [
        ([], [2, 2, 2, 2]),
        (["dlbench/engine/kv/masks.py"], [1, 1, 2, 2]),
        (["dlbench/engine/engine.py", "tests/engine/test_two.py"], [1, 0, 2, 2]),
        (["tests/helpers/tiny_models.py"], [0, 2, 2, 2]),
        (["leaderboard/site.py"], [2, 2, 2, 1]),
        (["docs/board.md"], [2, 2, 2, 1]),
        (["LICENSE"], [2, 2, 2, 2]),
    ],
)
def test_what_changed_comes_first(changed, ranks):
    assert list(QUICK.rank(changed, SOURCES).values()) == ranks


def test_files_are_taken_as_the_time_allows():
    ranks = {"changed": 0, "room": 1, "slow room": 1, "fast": 2, "slow": 2, "new": 2}
    seconds = {"changed": 9.0, "room": 8.0, "slow room": 50.0, "fast": 1.0, "slow": 30.0}
    assert QUICK.choose(ranks, seconds, 20, 2) == (["changed", "room", "fast", "new"], 20.0)
    assert QUICK.choose(ranks, seconds, 10, 2) == (["changed", "room", "fast"], 9.0)
    assert QUICK.choose(ranks, seconds, 10, 1) == (["changed", "fast"], 10.0)
    assert QUICK.choose(ranks, seconds, 0, 2) == ([], 0.0)


def test_every_room_has_its_tests_where_they_are_looked_for():
    for room in sorted(path for path in (ROOT / "dlbench").iterdir() if (path / "__init__.py").is_file()):
        for start in QUICK.tests_of(f"dlbench/{room.name}/some.py") or ("nowhere",):
            assert (ROOT / start).is_dir(), f"{start} should hold the tests of dlbench/{room.name}"
    for start, places in QUICK.TESTS_OF.items():
        assert (ROOT / start).exists(), start
        for place in places:
            assert list((ROOT / place).parent.glob(f"{Path(place).name}*")), place


def test_a_test_file_can_run_without_the_others():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    shared = [ROOT / "tests", *(ROOT / folder for folder in settings["pythonpath"])]  # the first by conftest.py
    for path in (ROOT / "tests").rglob("test_*.py"):
        for name in re.findall(r"^(?:from|import) (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert any((folder / f"{name}.py").is_file() for folder in (path.parent, *shared)), f"{path}: {name}"


def test_the_seconds_are_of_files_that_exist():
    seconds = json.loads((ROOT / "ci" / "test_seconds.json").read_text(encoding="utf-8"))
    assert [path for path in seconds if not (ROOT / path).is_file()] == []
    assert all(value >= 0 for value in seconds.values())


def test_what_pytest_measured_is_recorded(tmp_path, monkeypatch, capsys):
    store = ROOT / "build" / "no_such_file.json"
    kept = SimpleNamespace(
        read_text=lambda encoding: '{"tests/test_imports.py": 3.0, "tests/test_gone.py": 4.0}',
        write_text=lambda text, encoding: written.append(text),
        relative_to=store.relative_to,
    )
    written = []
    monkeypatch.setitem(QUICK.record.__globals__, "SECONDS", kept)
    report = tmp_path / "tests.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="tests.ci.test_scripts" name="a" time="1.25"/>'
        '<testcase classname="tests.ci.test_scripts.TestClass" name="b" time="0.5"/></testsuite></testsuites>'
    )
    QUICK.record(report)
    assert json.loads(written[0]) == {"tests/ci/test_scripts.py": 1.8, "tests/test_imports.py": 3.0}
