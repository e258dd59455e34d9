"""A real model on real text, where a development folder with both is at hand (DLBENCH_SHARED, or ../shared)."""

import json
import os
from pathlib import Path

import pytest
import sacrebleu

from dlbench.cli import main
from dlbench.data import loader
from dlbench.data.task_options import Sources
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, Sample

ROOT = Path(os.environ.get("DLBENCH_SHARED") or Path(__file__).parents[2].parent / "shared")
pytestmark = pytest.mark.skipif(
    not (ROOT / "data" / "e2e").is_dir(), reason=f"no development data in {ROOT}: set DLBENCH_SHARED"
)


@pytest.mark.parametrize(
    ("name", "scored", "fitted", "references"),
    [("e2e", 630, 2000, None), ("multi30k", 1000, 2000, 1), ("gsm8k", 1319, 2000, 1), ("dialogsum", 500, 2000, 3)],
)
def test_mirrors_of_real_data_load(name, scored, fitted, references):
    task = loader.load_task(name, Sources(data_dir=str(ROOT / "data"), fewshot=0))
    documents = task.documents("test")
    assert (len(documents), len(task.documents("fit"))) == (scored, fitted)
    assert references is None or {len(d.references) for d in documents} == {references}
    assert task.score(documents[0], " " + documents[0].references[0])[task.metric] == 1


@pytest.mark.slow
def test_corpus_bleu_is_sacrebleus_on_the_samples_written(tmp_path):
    line = ["run", "--model", str(ROOT / "models" / "e2e-16l"), "--task", "e2e", "--data-dir", str(ROOT / "data")]
    line += ["--limit", "first:40", "--method", "full", "--no-timing", "--offline", "--out", str(tmp_path)]
    assert main(line) == 0
    (record,) = read_lines(tmp_path / "records.jsonl", Record)
    written = [
        s.output.split("\n")[0].strip() for s in read_lines(tmp_path / "samples" / f"{record.key}.jsonl", Sample)
    ]
    lines = (ROOT / "data" / "e2e" / "test.jsonl").read_text().splitlines()[:40]
    references = [json.loads(line)["references"] for line in lines]
    most = max(map(len, references))
    streams = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    by_hand = sacrebleu.corpus_bleu(written, streams).score / 100
    assert record.quality and record.quality.corpus == by_hand == record.quality.extra["corpus_bleu"]
    assert 0.2 < by_hand < 0.8 and 0.4 < record.quality.mean < 0.7
    assert record.task.truncated == 0 and record.task.with_bos == 40
