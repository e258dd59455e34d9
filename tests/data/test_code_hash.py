"""What scores depend on beside the documents has a name: configuration and code, as far as the code leads."""

import json
import sys

import pytest

from dlbench.data import loader
from dlbench.data.scoring import code_hash
from dlbench.data.task_options import Sources

YAML = """
task: own
custom_dataset: !function judging.read
dataset_kwargs: {path: FOLDER/test.jsonl}
test_split: test
doc_to_text: "{{q}}"
doc_to_target: !function judging.target
process_results: !function judging.judge
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
filter_list:
  - name: first
    filter:
      - {function: custom, filter_fn: !function filtering.shorten}
      - {function: regex, regex_pattern: "(.*)"}
      - {function: take_first}
metric_list:
  - {metric: right, aggregation: !function counting.total, higher_is_better: true}
"""
MODULES = {
    "judging.py": """
import json, pathlib
import judging_helper_of_mine

def read(path, **_):
    from datasets import Dataset
    return {"test": Dataset.from_list([json.loads(line) for line in pathlib.Path(path).read_text().splitlines()])}

def target(doc):
    return doc["a"]

def judge(doc, results):
    return {"right": judging_helper_of_mine.same(results[0], doc["a"])}
""",
    "judging_helper_of_mine.py": "def same(one, other):\n    return float(one == other)\n",
    "filtering.py": "def shorten(resps, docs):\n    return resps\n",
    "counting.py": "def total(values):\n    return sum(values) / len(values)\n",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "test.jsonl").write_text("".join(json.dumps({"q": f"q{i}", "a": f"a{i}"}) + "\n" for i in range(5)))
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "own.yaml").write_text(YAML.replace("FOLDER", str(tmp_path)))
    yield tmp_path
    loader.load_task.cache_clear()


def sha256(folder):
    """The hash in a new process."""
    loader.load_task.cache_clear()
    for name in (*MODULES, "outer_of_mine.py"):
        sys.modules.pop(name.removesuffix(".py"), None)
        sys.modules.pop(str(folder / name.removesuffix(".py")), None)
    return loader.load_task(str(folder / "own.yaml")).scoring_sha256


@pytest.mark.parametrize("name", MODULES)
def test_every_module_that_scores_counts_by_its_code(folder, name):
    before = sha256(folder)
    (folder / name).write_text("# prose\n\n" + MODULES[name])
    assert sha256(folder) == before
    (folder / name).write_text(MODULES[name] + "\nmore = 1\n")
    assert sha256(folder) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"(.*)"', '"(..)"'),
        ("judging.judge", "judging.target"),
        ("higher_is_better: true}", "higher_is_better: true, more: 1}"),
        ("counting.total", "mean"),
    ],
)
def test_the_configuration_counts(folder, old, new):
    before, path = sha256(folder), folder / "own.yaml"
    text = path.read_text()
    path.write_text(text.replace(old, new).replace("!function mean", "mean"))
    assert sha256(folder) != before
    path.write_text(text.replace("max_gen_toks: 4", "max_gen_toks: 5") + "metadata: {about: something}\n")
    assert sha256(folder) == before  # what is asked, and for how long, is no part of it


DECORATED = """
import functools
from {inner} import judge as inner

{decorator}
"""
DECORATORS = {
    "wrapped": "@functools.wraps(inner)\ndef judge(doc, results):\n    return inner(doc, results)",
    "closed over": "def made(f):\n    return lambda doc, results: f(doc, results)\n\njudge = made(inner)",
    "bound": "def first(f, doc, results):\n    return f(doc, results)\n\njudge = functools.partial(first, inner)",
}


@pytest.mark.parametrize("decorator", DECORATORS.values(), ids=DECORATORS)
@pytest.mark.parametrize("edited", ["judging.py", "outer_of_mine.py"])
def test_a_decorated_function_counts_by_its_own_code_and_its_decorators(folder, monkeypatch, decorator, edited):
    """The decorator hides the module of what it decorates, or takes its name."""
    outer = folder / "outer_of_mine.py"
    outer.write_text(DECORATED.format(inner="judging", decorator=decorator))
    yaml = folder / "own.yaml"
    yaml.write_text(yaml.read_text().replace("judging.judge", "outer_of_mine.judge"))
    before = sha256(folder)
    text = (folder / edited).read_text()
    (folder / edited).write_text("# prose\n" + text)
    assert sha256(folder) == before
    (folder / edited).write_text(text + "\nmore = 1\n")
    assert sha256(folder) != before


def test_installed_code_counts_by_its_release(folder, monkeypatch):
    before = sha256(folder)
    monkeypatch.setattr("dlbench.registry.provenance._release", lambda top: "0.0")
    assert sha256(folder) != before


def test_tasks_that_ship_do_not_ask_for_releases(monkeypatch):
    inner = loader.load_task("nano_math").inner
    before = code_hash.scoring_sha256(inner)
    monkeypatch.setattr("dlbench.registry.provenance._release", lambda top: "0.0")
    assert code_hash.scoring_sha256(inner) == before
    others = {loader.load_task(name).scoring_sha256 for name in ("nano_summary", "nano_translate", "nano_math")}
    assert len(others) == 3 and before in others


def test_the_code_of_our_metrics_counts(monkeypatch, tmp_path):
    """In a copy of the file: the one that is in use stays as it is."""
    from dlbench.registry import provenance, source_file

    inner = loader.load_task("nano_math").inner
    before, read = code_hash.scoring_sha256(inner), provenance.read
    seen = []

    def other(path):
        seen.append(path.name)
        source = read(path)
        return source_file.SourceFile("0" * 64, source.imports) if path.name == "words.py" else source

    monkeypatch.setattr(provenance, "read", other)
    assert code_hash.scoring_sha256(inner) != before
    assert sorted(seen) == ["metric_registry.py", "metrics.py", "words.py"]


def test_a_file_of_documents_is_scored_by_its_metric(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"input": "x", "references": ["y"]}) + "\n" for _ in range(3)))
    found = {m: loader.load_task(f"file:{path}", Sources(metric=m)).scoring_sha256 for m in ("rougeL", "bleu", "f1")}
    assert len(set(found.values())) == 3
    other = loader.load_task(f"file:{path}", Sources(metric="f1", template="Say {input}"))
    assert other.scoring_sha256 == found["f1"]
