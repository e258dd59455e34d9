"""What a name of a task stands for."""

import json
import pickle

import pytest

from dlbench.data import loader, resolve, suites
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError

LINE = json.dumps({"input": "x", "references": ["y"]}) + "\n"


def test_every_kind_of_name_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text(LINE)
    (tmp_path / "own.yaml").write_text("task: own\n")
    found = {
        name: resolve.resolve(name)
        for name in ("file:mine.jsonl", "nano", "nano_math", "own.yaml", "arc_easy", "ai2_arc", "gsm8k")
    }
    assert [(one.kind, one.path is None) for one in found.values()] == [
        ("file", False),
        ("suite", True),
        ("dlbench", False),
        ("yaml", False),
        ("lm-eval", False),
        ("group", True),
        ("lm-eval", False),
    ]
    assert found["nano"].tasks == suites.suites()["nano"]
    assert found["ai2_arc"].tasks == ("arc_challenge", "arc_easy")
    assert found["own.yaml"].path == tmp_path / "own.yaml" and found["own.yaml"].tasks == ("own.yaml",)
    assert found["gsm8k"].path is not None and "lm_eval" in found["gsm8k"].path.parts
    assert resolve.expand_tasks(found) == [
        "file:mine.jsonl",
        *suites.suites()["nano"],
        "own.yaml",
        "arc_easy",
        "arc_challenge",
        "gsm8k",
    ]


def test_a_name_of_several_tasks_cannot_be_loaded():
    with pytest.raises(DlbenchError, match="'nano' stands for several tasks: name one of nano_data2text, "):
        loader.load_task("nano")
    with pytest.raises(DlbenchError, match="'ai2_arc' stands for several tasks: name one of arc_challenge, arc_easy"):
        loader.load_task("ai2_arc")


def test_a_file_without_its_mark_is_recognised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "test.jsonl").write_text(LINE)
    for name in ("mine.jsonl", "mine"):
        with pytest.raises(DlbenchError, match=f"unknown task '{name}': for a file .* of your own, give file:{name}$"):
            resolve.expand_tasks([name])
    with pytest.raises(DlbenchError, match="unknown task 'nano_meth': did you mean nano_math"):
        resolve.expand_tasks(["nano_meth"])
    with pytest.raises(DlbenchError, match=r"no task file .*own\.yml: give the path of an lm-eval task YAML"):
        resolve.expand_tasks(["own.yml"])


def test_names_that_no_file_system_takes_are_unknown():
    for name in ("a\0b", "x" * 5000, "nowhere/" * 2000):
        with pytest.raises(DlbenchError, match="unknown task"):
            resolve.expand_tasks([name])


def test_a_task_loads_again_in_another_process(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(LINE * 10)
    sources = Sources(template="Say {input}")
    again = pickle.loads(pickle.dumps(loader.load_task(f"file:{path}", sources)))
    assert again is loader.load_task(f"file:{path}", sources)
