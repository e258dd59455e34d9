"""A metric is one decorated function in one file: everything that knows metrics finds it in the registry."""

import importlib
import json
import subprocess
import sys

import pytest

from dlbench.cli import main
from dlbench.data import loader
from dlbench.data.scoring import metric_registry
from dlbench.data.task_options import Sources
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, Sample
from dlbench.tasks import metrics

DUMMY = '''
from dlbench.tasks.metrics import Value, metric


@metric(Value("letters", "letters: of the output, up to those of the longest reference"))
def score_letters(doc, results):
    """Score a text by its length."""
    return {"letters": min(1.0, len(results[0]) / max(map(len, doc["references"])))}
'''
START = "import sys, dummy_metric; from dlbench.cli import main; sys.exit(main(sys.argv[1:]))"
YAML = """
task: own_letters
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{input}}}}"
doc_to_target: references
process_results: !function dummy_metric.score_letters
metric_list:
  - {{metric: letters, aggregation: mean, higher_is_better: true}}
"""


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "mine.jsonl"
    lines = [{"input": f"inn {i}", "references": [f"There is an inn {i}.", "An inn."]} for i in range(10)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def own_registry(monkeypatch):
    """Let a test register what it likes."""
    monkeypatch.setattr(metric_registry, "_METRICS", list(metric_registry._METRICS))
    monkeypatch.setattr(metric_registry, "_OF_FILES", dict(metric_registry._OF_FILES))
    yield
    sys.modules.pop("dummy_metric", None)


def test_one_decorated_function_is_a_metric_of_a_run(tmp_path, documents, own_registry, monkeypatch):
    (tmp_path / "dummy_metric.py").write_text(DUMMY)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("dummy_metric")

    def dlbench(*line):
        return subprocess.run([sys.executable, "-c", START, *line], capture_output=True, text=True, cwd=tmp_path)

    out = tmp_path / "out"
    line = f"--model nano --task file:{documents} --method full --limit 3 --max-new-tokens 3 --no-timing --out {out}"
    assert main(["run", *line.split(), "--metric", "letters"]) == 0
    record = next(one for one in read_lines(out / "records.jsonl", Record) if one.backbone.name == "nano")
    samples = list(read_lines(out / "samples" / f"{record.key}.jsonl", Sample))
    assert record.task.metric == "letters" and record.task.version == "1 letters"
    assert record.task.signature == "letters: of the output, up to those of the longest reference"
    longest = len("There is an inn 0.")
    assert [s.score for s in samples] == [min(1, len(s.output.split("\n\n")[0].strip()) / longest) for s in samples]
    assert record.quality is not None and record.quality.mean == pytest.approx(sum(s.score for s in samples) / 3)
    assert 0 < record.quality.mean < 1
    assert "rougeL, bleu, chrf, exact, f1, letters." in " ".join(dlbench("run", "--help").stdout.split())
    wrong = dlbench("run", *line.split(), "--metric", "leters")
    assert wrong.returncode == 2 and "unknown metric 'leters': did you mean letters?" in wrong.stderr


def test_a_yaml_names_the_same_function(tmp_path, documents, own_registry):
    (tmp_path / "dummy_metric.py").write_text(DUMMY)
    (tmp_path / "own.yaml").write_text(YAML.format(file=documents))
    task = loader.load_task(str(tmp_path / "own.yaml"))
    (document,) = task.documents("test", 1)
    assert task.score(document, "an inn") == {"letters": len("an inn") / len("There is an inn 0.")}
    assert task.signature([document]).startswith("letters: of the output")
    assert "letters" in metrics.of_files()


def test_two_functions_may_not_share_a_name(own_registry):
    with pytest.raises(ValueError, match="two metrics are named 'exact': rename one"):

        @metrics.metric(metrics.Value("exact", "exact: as it were"))
        def score_otherwise(doc, results):
            return {"exact": 1.0}


def test_a_file_that_is_imported_again_keeps_its_metric(own_registry):
    for half in (0.5, 0.25):
        space = {}
        exec(compile(DUMMY.replace("1.0", str(half)), "dummy_metric.py", "exec"), space)
        assert metrics.of_files()["letters"].score is space["score_letters"]


def test_what_a_metric_gives_is_what_its_task_reports(documents):
    for name, registered in metrics.of_files().items():
        task = loader.load_task(f"file:{documents}", Sources(metric=name))
        assert [value.name for value in registered.values if value.corpus is None] == list(task.metrics)
        assert task.metric == name
        (document,) = task.documents("test", 1)
        corpora = task.corpora([document], [document.references[0]])
        assert [value.name for value in registered.values if value.corpus is not None] == list(corpora)
    assert loader.load_task(f"file:{documents}").metric == metrics.DEFAULT
