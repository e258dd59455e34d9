"""What is read of run folders."""

from record_factory import synthetic_run

from dlbench.leaderboard.data.run_files import read_runs
from dlbench.records.jsonl import write_lines


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
