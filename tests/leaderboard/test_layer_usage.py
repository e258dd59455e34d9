import pytest
from record_factory import record, synthetic_run

from dlbench.errors import RecordError
from dlbench.leaderboard.data.layer_usage import count_usage
from dlbench.leaderboard.data.run_files import read_runs
from dlbench.records.schema import Sample, write_lines

KEY = "ab" * 16


def sample(id_, routes, layers):
    return Sample(
        id=id_,
        output="",
        score=0.5,
        layers=layers,
        routes=routes,
        truncated=False,
        tokens={"prompt": 1, "generated": len(layers) + 1},
        flops={"layers": 1, "attention": 0, "heads": 0, "kv": 0, "router": 0},
        prompt_flops=1,
        executed_flops=1,
    )


def test_layers_and_depths_are_counted_over_all_forwards():
    used = count_usage(KEY, 4, [sample("a", [("3300", 2), ("3010", 1)], (2, 2, 1.5)), sample("b", [("3333", 1)], (4,))])
    assert used.layers == (1.0, 0.75, 0.375, 0.25)
    assert used.depths == (0, 0, 3, 0, 1)  # 1.5 rounds to the even 2


def test_samples_that_do_not_say_leave_it_open():
    assert count_usage(KEY, 4, [sample("a", [], (2, 2))]).layers == ()
    assert count_usage(KEY, 4, [sample("a", [("33", 2)], (2, 9))]).layers == ()  # of another depth
    assert count_usage(KEY, 4, [sample("a", [("33", 2)], (2, 9))]).depths == (0, 0, 1, 0, 1)
    assert count_usage(KEY, 4, []).depths == ()


def test_a_run_is_read_with_its_documents_and_where_layers_went(tmp_path):
    run = synthetic_run(documents=6, tasks=["nano_math"])
    runs = read_runs([run.write(tmp_path)])
    static = next(one for one in run.records if one.method.name == "static_skip" and one.run.budget == 0.5)
    assert runs.usage[static.key].layers == (1.0,) * 8 + (0.0,) * 8
    assert runs.usage[static.key].depths[8] == 6 * 8
    asked = runs.documents()["nano_math/1/full"]
    assert asked["nano_math/3"].references == ("By the river.", "There.")


def test_a_document_scored_twice_is_refused(tmp_path):
    one = record()
    write_lines(tmp_path / "records.jsonl", [one])
    first = sample("a", [], (1,))
    twice = [first, first.model_copy(update={"score": 0.9})]
    write_lines(tmp_path / "samples" / f"{one.key}.jsonl", twice)
    with pytest.raises(RecordError, match="'a' is there twice, with two scores"):
        read_runs([tmp_path])


def test_of_two_copies_the_lesser_claim_counts(tmp_path):
    one = record()
    write_lines(tmp_path / "a" / "records.jsonl", [one.model_copy(update={"trust": "reproduced"})])
    write_lines(tmp_path / "b" / "records.jsonl", [one.model_copy(update={"trust": "validated"})])
    for folders in (("a", "b"), ("b", "a")):
        assert [r.trust for r in read_runs([tmp_path / name for name in folders]).records] == ["validated"]
