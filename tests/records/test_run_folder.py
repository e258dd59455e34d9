"""The run folder: samples survive a kill, another number of processes, and a damaged line."""

import errno
import os
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from record_samples import sample

from dlbench.errors import DlbenchError, RecordError
from dlbench.records.jsonl import format_line, read_lines
from dlbench.records.run_folder import Store, check_folder
from dlbench.records.schema import CandidateScore, Sample
from dlbench.system import folder_lock

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


def torn(lines):
    return b"".join(lines)[:-7]


def zeroed(lines):
    return lines[0] + b"\0" * len(lines[1]) + lines[2]


def garbled(lines):
    return b"\xff\xfe garbage\n" + lines[0] + lines[2]


def edited(lines):
    return lines[0] + lines[1].replace(b'"score":0.5', b'"score":0.9') + lines[2]


def another_output(lines):
    return lines[0] + lines[1].replace(b'"output":"', b'"output":"more') + lines[2]


def endless(lines):
    return lines[0] + b"x" * (50 << 20) + b"\n" + lines[2]


@pytest.mark.parametrize("damage", [torn, zeroed, garbled, edited, another_output, endless])
def test_a_damaged_merged_file_costs_only_its_damaged_lines(store, damage):
    store.append(KEY, 0, [sample(id_, score=0.5) for id_ in "abc"])
    store.merge(KEY, list("abc"))
    whole = store.path(KEY).read_bytes()
    content = damage(whole.splitlines(keepends=True))
    assert content != whole
    store.path(KEY).write_bytes(content)
    again = Store(store.out)
    lost = {torn: "c", zeroed: "bc"}.get(damage, "b")  # zeros hold no line end either
    assert set(again.samples(KEY)) == set("abc") - set(lost)
    assert f"{KEY}.jsonl, line " in again.damaged(KEY)
    again.append(KEY, 0, [sample(id_, score=0.5) for id_ in lost])
    again.merge(KEY, list("abc"))
    assert store.path(KEY).read_bytes() == whole
    assert store.path(KEY).with_suffix(".jsonl.damaged").read_bytes() == content
    assert Store(store.out).damaged(KEY) == ""


def test_a_sample_of_another_key_is_not_believed(store):
    store.append(KEY, 0, [sample("a")])
    store.merge(KEY, ["a"])
    store.path(OTHER).write_bytes(store.path(KEY).read_bytes())
    part(store, key=OTHER).write_bytes(store.path(KEY).read_bytes())
    assert store.samples(OTHER) == {} and "another key" in store.damaged(OTHER)


def test_samples_of_earlier_releases_have_no_checksum(store):
    line = format_line(sample("a"))
    assert "check" not in line
    store.path(KEY).write_text(line + "\n")
    assert store.samples(KEY) == {"a": sample("a")} and store.damaged(KEY) == ""
    store.merge(KEY, ["a"])
    assert '"check":"' in store.path(KEY).read_text()


def full(store, monkeypatch, number):
    def refuse(self, *_, **__):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "open", refuse)


def limited(store, monkeypatch):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(resource, "undo", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before), raising=False)
    resource.setrlimit(resource.RLIMIT_FSIZE, (part(store).stat().st_size + 100, before[1]))


FAULTS = {
    "full disk": (lambda *at: full(*at, errno.ENOSPC), "No space left on device; make room"),
    "quota": (lambda *at: full(*at, errno.EDQUOT), "quota exceeded; make room"),
    "read-only": (lambda *at: full(*at, errno.EROFS), "Read-only file system; give a folder that can be written"),
    "file size": (limited, "File too large, a limit on the size of files (`ulimit -f`)"),
    "folder gone": (lambda store, _: store.samples_dir.rename(store.out / "elsewhere"), "the folder was removed"),
    "file for a folder": (
        lambda store, _: (store.samples_dir.rename(store.out / "elsewhere"), store.samples_dir.write_text("")),
        "Not a directory",
    ),
}


@pytest.mark.parametrize(("cause", "said"), FAULTS.values(), ids=FAULTS)
def test_what_the_system_refuses_is_one_line_and_earlier_samples_stay(store, monkeypatch, cause, said):
    store.append(KEY, 0, [sample("a")])
    with monkeypatch.context() as patch:
        cause(store, patch)
        try:
            with pytest.raises(RecordError) as caught:
                store.append(KEY, 0, [sample("b", output="x" * 1000)])
        finally:
            getattr(resource, "undo", lambda: None)()
    assert str(caught.value).startswith(str(part(store))) and said in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    if (elsewhere := store.out / "elsewhere").exists():
        store.samples_dir.unlink(missing_ok=True)
        elsewhere.rename(store.samples_dir)
    again = Store(store.out)
    assert again.samples(KEY) == {"a": sample("a")}
    again.append(KEY, 0, [sample("b")])
    assert Store(store.out).samples(KEY) == {"a": sample("a"), "b": sample("b")}


def test_memory_does_not_grow_with_the_samples_of_a_run(store):
    """Each key has twenty documents, with outputs of 10,000 characters; what stays are the documents' names."""
    order = [f"d{i}" for i in range(20)]
    held = []
    tracemalloc.start()
    try:
        for number in range(40):
            key = f"{number:032x}"
            store.append(key, 0, [sample(id_, output=f"{number} {id_} " + "x" * 10_000) for id_ in order])
            assert store.ids(key) == set(order)
            store.merge(key, order, expected=True)
            assert list(store.samples(key)) == order
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[39] - held[9] < 30 * 20 * 300  # of 30 keys, of which 6 MB were written


@pytest.mark.parametrize("torn", [10, 100_000])
def test_a_torn_line_is_cut_off_however_long_it_is(store, torn):
    store.append(KEY, 0, [sample("a")])
    with part(store).open("ab") as file:
        file.write(b"x" * torn)
    store.append(KEY, 0, [sample("b")])
    assert Store(store.out).samples(KEY) == {"a": sample("a"), "b": sample("b")}
    part(store).write_bytes(b"x" * torn)
    Store(store.out).append(KEY, 0, [sample("c")])
    assert set(Store(store.out).samples(KEY)) == {"c"}


def test_a_full_file_system_costs_no_sample_that_was_written(tmp_path):
    """A real one, of 1 MB, where the system lets a user mount it."""
    script = tmp_path / "fill.py"
    script.write_text(
        "import sys; from pathlib import Path; from dlbench.errors import RecordError\n"
        "from dlbench.records.run_folder import Store; from record_samples import sample\n"
        "out = Path(sys.argv[1]) / 'run'; store = Store(out); store.open({}); n = 0\n"
        "try:\n"
        "    while True:\n"
        "        store.append('0' * 32, 0, [sample(f'd{n}', output='x' * 50_000)]); n += 1\n"
        "except RecordError as error:\n"
        "    print(error)\n"
        "print(n, list(Store(out).samples('0' * 32)) == [f'd{i}' for i in range(n)])\n"
    )
    (tmp_path / "disk").mkdir()
    mounted = f"mount -t tmpfs -o size=1m none {tmp_path}/disk && {sys.executable} {script} {tmp_path}/disk"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", mounted], env=env, capture_output=True, text=True)
    if ran.returncode:
        pytest.skip(f"no mounts here: {ran.stderr[-200:]}")
    message, count = ran.stdout.splitlines()
    assert "No space left on device; make room" in message and int(count.split()[0]) > 5 and "True" in count


def test_two_commands_do_not_write_to_one_folder(store):
    with pytest.raises(DlbenchError, match=f"--out .*: another command writes there .process {os.getpid()} on "):
        check_folder_now(store.out)
    store.close()
    check_folder_now(store.out)
    Store(store.out).open({})


def check_folder_now(out):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder_lock.check_free, "__defaults__", (0.0,))
        check_folder(out, "run.json", "run")


def test_a_folder_that_a_kill_left_unmarked_is_taken(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / ".lock").touch()
    (tmp_path / ".run.json.abc.scratch").touch()
    check_folder(tmp_path, "run.json", "run")
    Store(tmp_path).open({})
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "run.json", "samples"]
    (tmp_path / "run.json").unlink()
    (tmp_path / "samples" / "thesis.tex").touch()
    with pytest.raises(DlbenchError, match="holds files but no run"):
        check_folder(tmp_path, "run.json", "run")


def test_what_a_run_wrote_after_its_folder_was_removed_is_taken(tmp_path):
    written = (f"fits/{KEY}/fit.json", f"tune/samples/{KEY}.jsonl", "tune/run.json", f"samples/{KEY}.jsonl")
    for path in (*written, f"refitted/{KEY}"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    for name in ("log.jsonl", "log.jsonl.old", "state.json"):
        (tmp_path / name).touch()
    check_folder(tmp_path, "run.json", "run")
    for foreign in ("fits/galaxy.fits", "tune/piano.txt", "state.db", "log.jsonl.gz"):
        (tmp_path / foreign).touch()
        with pytest.raises(DlbenchError, match="holds files but no run"):
            check_folder(tmp_path, "run.json", "run")
        (tmp_path / foreign).unlink()


def test_candidates_stand_beside_the_samples(store):
    line = CandidateScore(id="a", candidate="prefix-2", layers=(0, 1), share=0.5, score=0.25)
    store.put(KEY, [sample("a")])
    store.put_candidates(KEY, [line])
    (path,) = store.samples_dir.glob("*candidate*")
    assert list(read_lines(path, CandidateScore)) == [line]
    assert merged(store) == ["a"]
    assert Store(store.out).samples(KEY) == {"a": sample("a")}  # the candidates are not taken for samples
