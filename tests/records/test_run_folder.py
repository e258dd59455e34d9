"""The run folder: samples survive a kill, another number of processes, and a damaged line."""

import pytest
from record_samples import sample

from dlbench.records.jsonl import format_line, read_lines
from dlbench.records.run_folder import Store
from dlbench.records.schema import CandidateScore, RecordError, Sample

KEY, OTHER = "0" * 32, "1" * 32


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path)
    made.open({"dlbench": "test"})
    return made


def part(store, process=0, key=KEY):
    return store.samples_dir / f"{key}.{process}.part"


def merged(store, key=KEY):
    return [s.id for s in read_lines(store.path(key), Sample)]


def test_marks_its_folder(store):
    assert (store.out / "run.json").read_text() == '{\n "dlbench": "test"\n}\n'


def test_what_is_appended_is_known_at_once_and_to_the_next_run(store):
    assert store.samples(KEY) == {}
    a, b = sample("a", output="two\nlines\u2028and “more”\r"), sample("b", near_ties=((1, 0.5),))
    store.append(KEY, 0, [a])
    store.append(KEY, 0, [b])
    assert store.samples(KEY) == Store(store.out).samples(KEY) == {"a": a, "b": b}
    assert store.samples(OTHER) == {}


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_decoded_again(store, cut):
    store.append(KEY, 0, [sample("a"), sample("b")])
    part(store).write_bytes(part(store).read_bytes()[:-cut])
    again = Store(store.out)
    assert set(again.samples(KEY)) == {"a"}
    again.append(KEY, 0, [sample("b", score=0.25)])
    assert Store(store.out).samples(KEY) == {"a": sample("a"), "b": sample("b", score=0.25)}
    again.merge(KEY, ["b", "a"])
    assert merged(store) == ["b", "a"]


def test_a_damaged_line_costs_only_itself(store):
    store.append(KEY, 0, [sample("a"), sample("b"), sample("c")])
    lines = part(store).read_bytes().splitlines(keepends=True)
    part(store).write_bytes(lines[0] + b"\0" * 30 + b"\n" + lines[2])
    again = Store(store.out)
    assert set(again.samples(KEY)) == {"a", "c"}
    again.append(KEY, 0, [sample("b")])
    again.merge(KEY, ["a", "b", "c"])
    assert merged(store) == ["a", "b", "c"]


def test_other_processes_go_on_where_these_stopped(store):
    order = [f"d{i}" for i in range(6)]
    for process in range(3):
        store.append(KEY, process, [sample(order[2 * process])])
    alone = Store(store.out)  # now one process instead of three
    missing = [id_ for id_ in order if id_ not in alone.samples(KEY)]
    assert missing == ["d1", "d3", "d5"]
    alone.append(KEY, 0, [sample(id_) for id_ in missing])
    alone.merge(KEY, order)
    assert merged(store) == order
    assert not list(store.samples_dir.glob("*.part"))
    assert Store(store.out).samples(KEY) == {id_: sample(id_) for id_ in order}


def test_merging_sees_what_other_processes_wrote_meanwhile(store):
    store.samples(KEY)
    Store(store.out).append(KEY, 1, [sample("b")])
    store.append(KEY, 0, [sample("a")])
    store.merge(KEY, ["a", "b"])
    assert list(store.samples(KEY)) == merged(store) == ["a", "b"]


def test_merging_twice_and_with_fewer_documents_loses_nothing(store):
    store.append(KEY, 0, [sample("c"), sample("a"), sample("b")])
    store.merge(KEY, ["a", "b", "c"])
    before = store.path(KEY).read_bytes()
    store.merge(KEY, ["a", "b", "c"])
    assert store.path(KEY).read_bytes() == before
    store.merge(KEY, ["b"])  # a run with --limit 1: the others stay, behind it
    assert merged(store) == ["b", "a", "c"]


def test_a_kill_between_writing_and_removing_doubles_nothing(store):
    store.append(KEY, 0, [sample("a"), sample("b")])
    kept = part(store).read_bytes()
    store.merge(KEY, ["a", "b"])
    part(store).write_bytes(kept)
    again = Store(store.out)
    again.merge(KEY, ["a", "b"])
    assert merged(store) == ["a", "b"]


def test_keys_do_not_mix(store):
    store.append(KEY, 0, [sample("a", score=0.1)])
    store.append(OTHER, 0, [sample("a", score=0.9)])
    store.merge(KEY, ["a"])
    assert store.samples(KEY)["a"].score == 0.1 and store.samples(OTHER)["a"].score == 0.9
    assert part(store, key=OTHER).is_file()


def test_a_merged_file_that_was_changed_is_named(store):
    store.append(KEY, 0, [sample("a"), sample("b")])
    store.merge(KEY, ["a", "b"])
    store.path(KEY).write_text(format_line(sample("a")) + "\n" + '{"id": "b"}\n')
    with pytest.raises(RecordError, match=f"{KEY}.jsonl, line 2"):
        Store(store.out).samples(KEY)


def test_candidates_stand_beside_the_samples(store):
    line = CandidateScore(id="a", candidate="prefix-2", layers=(0, 1), share=0.5, score=0.25)
    store.put(KEY, [sample("a")])
    store.put_candidates(KEY, [line])
    (path,) = store.samples_dir.glob("*candidate*")
    assert list(read_lines(path, CandidateScore)) == [line]
    assert merged(store) == ["a"]
    assert Store(store.out).samples(KEY) == {"a": sample("a")}  # the candidates are not taken for samples
