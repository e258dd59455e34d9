"""What is read of run folders."""

import pytest
from record_factory import synthetic_run

from dlbench.errors import RecordError
from dlbench.leaderboard.data.run_files import read_runs
from dlbench.records.checksum import sealed_line
from dlbench.records.jsonl import read_lines, write_lines
from dlbench.records.schema import Sample


def test_samples_that_were_changed_are_refused(tmp_path):
    run = synthetic_run(documents=12)
    folder = run.write(tmp_path / "run")
    before = read_runs([folder])
    path = folder / "samples" / f"{run.records[0].key}.jsonl"
    first, *others = read_lines(path, Sample)  # they have no checksums, as in earlier releases
    sealed = [sealed_line(path.stem, one) for one in (first, *others)]
    path.write_text("\n".join(sealed) + "\n")
    assert read_runs([folder]).scores == before.scores
    better = first.model_copy(update={"score": 1.0 - first.score / 2})
    changed = better.model_copy(update={"check": sealed_line(path.stem, first).partition('"check":"')[2][:32]})
    write_lines(path, [changed, *others])
    with pytest.raises(RecordError, match=f"{path.stem}.jsonl, line 1: check: the line was changed, or belongs to"):
        read_runs([folder])


def test_samples_of_an_earlier_larger_run_do_not_count(tmp_path):
    run = synthetic_run(documents=12)
    folder = run.write(tmp_path / "run")
    before = read_runs([folder])
    track = run.records[0].track
    kept = [line for line in run.asked if line.track != track or line.id.endswith(("/0", "/1", "/2"))]
    write_lines(folder / "documents.jsonl", kept)
    after = read_runs([folder])
    for record in run.records:
        scores, usage = after.scores[record.key], after.usage[record.key]
        if record.track == track:
            assert set(scores) == {line.id for line in kept if line.track == track} and len(scores) == 3
            assert sum(usage.depths) * 4 == sum(before.usage[record.key].depths)
        else:
            assert scores == before.scores[record.key]
    (folder / "documents.jsonl").unlink()
    assert read_runs([folder]).scores == before.scores
