"""A session's second call sees what has been edited since the first, and counts its time from its own beginning."""

import time

import pytest

import dlbench
from dlbench.api.given_methods import resolve
from dlbench.api.rereading import reread
from dlbench.data.loader import load_task
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.evaluation.settings import source_sha256
from dlbench.registry import methods as registry
from dlbench.system import stopping

METHOD = '''
"""Skip a layer."""

from dataclasses import dataclass
from dlbench.method import Static
from chosen_layer import LAYER


@dataclass
class Skips(Static):
    """Skip a layer."""

    def layers(self, depth):
        return frozenset(range(depth)) - {LAYER}
'''


def plugin(folder, layer):
    (folder / "skips_one.py").write_text(METHOD)
    (folder / "chosen_layer.py").write_text(f"LAYER = {layer}\n")
    return str(folder / "skips_one.py")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_an_edited_method_runs_as_it_is_now_under_a_key_of_its_own(folder):
    path = plugin(folder, 2)
    first, hashed = registry.load(path), source_sha256(path)
    assert first.from_params({}).layers(4) == {0, 1, 3}
    reread()
    assert registry.load(path) is first and source_sha256(path) == hashed  # nothing has changed
    plugin(folder, 1)  # of the same size, within the same second
    reread()
    assert registry.load(path).from_params({}).layers(4) == {0, 2, 3}
    assert source_sha256(path) != hashed


def test_edited_documents_are_read_again(tmp_path):
    path = tmp_path / "mine.jsonl"
    lines = [f'{{"input": "number {n}", "references": ["{n}"]}}' for n in range(20)]
    path.write_text("\n".join(lines))
    name = f"file:{path}"
    before = {d.prompt for d in load_task(name, Sources()).documents("test")}
    path.write_text("\n".join(lines).replace("number", "figure"))
    reread()
    after = {d.prompt for d in load_task(name, Sources()).documents("test")}
    assert before and {one.replace("number", "figure") for one in before} == after


def test_a_time_limit_counts_from_the_call(monkeypatch):
    monkeypatch.setattr(stopping, "_BEGUN", time.monotonic() - 1000)
    assert stopping.is_over(100)
    with pytest.raises(DlbenchError, match="unknown task"):
        dlbench.run(tasks="no_such_task", time_limit="100s")
    assert not stopping.is_over(100)


def test_two_settings_of_one_method_are_not_taken_for_one(tmp_path):
    static_exit = registry.load("static_exit")
    one, other = static_exit.from_params({"share": 0.5}), static_exit.from_params({"share": 0.75})
    for given in ([one, other], ["static_exit", one], [one, "static_exit"]):
        with pytest.raises(DlbenchError, match="'static_exit' is given twice"):
            resolve(given, tmp_path)
    assert resolve(["static_exit", "static_exit", static_exit], tmp_path) == (("static_exit",), {})
