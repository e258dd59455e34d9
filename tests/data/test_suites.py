"""Every task of the suites: its YAML loads from a folder of the hub's shape and from the mirror made of that, alike."""

import json
import shutil
from typing import ClassVar

import hub_shapes
import pytest

from dlbench.cli import main
from dlbench.data import lm_eval_index, loader, mirrors, resolve, suites
from dlbench.data.prefetch import fetch
from dlbench.data.task_options import Sources

TASKS = [name for name, info in suites.tasks().items() if info.cite]  # the others bring their data along


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    with hub_shapes.quiet():
        hub_shapes.write(root)
    return root


@pytest.fixture(scope="module", autouse=True)
def mirror(hub, tmp_path_factory):
    """Mirrors of all suites, as `dlbench prefetch` makes them where the hub can be reached.

    The tasks that it loads from there stay in the cache: without a mirror, `load_task` gives these.
    """
    import datasets

    to = tmp_path_factory.mktemp("mirror")
    loader.load_task.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        # Not the user's cache: what it holds under these names may come of other rows.
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        with pytest.MonkeyPatch.context() as there:
            there.chdir(hub)
            fetch([s for s in suites.suites() if s != "nano"], to, Sources(), lambda made: None)
        yield to
    loader.load_task.cache_clear()


def loaded(name):
    """The task from the folder of the hub's shape."""
    return loader.load_task(name, Sources())


@pytest.mark.parametrize("name", TASKS)
def test_hub_and_mirror_give_the_same_documents(name, mirror):
    there = loaded(name)
    assert there.inner.config.custom_dataset is None or name == "paper_alpaca"
    here = loader.load_task(name, Sources(data_dir=str(mirror)))
    for split in ("test", "fit"):
        assert there.documents(split) == here.documents(split) != []
    assert (there.metrics, there.version, there.fit_split) == (here.metrics, here.version, here.fit_split)


@pytest.mark.parametrize("name", TASKS)
def test_what_a_list_says_is_what_the_task_is(name):
    info, task = suites.tasks()[name], loaded(name)
    assert (info.metric, info.version, info.fit) == (task.metric, task.version, task.fit_split)
    config = task.inner.config
    assert info.test == (config.test_split or config.validation_split)
    assert info.about and ("arXiv:" in info.cite or "doi:" in info.cite)
    if info.limit is not None:
        assert info.limit == task.max_new_tokens > 0
    documents = task.documents("test")
    assert 0 < len(task.signature(documents)) <= 500 and task.signature(documents).isprintable()
    document = documents[0]
    if task.is_loglikelihood:
        assert len(document.pairs) == 4 and document.chance == 0.25
        scores = task.weigh(document, [(-1.0 - i, False) for i in range(4)])
    else:
        scores = task.score(document, f" {document.references[0]}")
        assert scores[task.metric] == 1
    assert tuple(scores) == task.metrics


def test_names_are_not_those_of_lm_eval():
    """So that a name never means two things; a suite of ours goes before a tag of lm-eval."""
    theirs = lm_eval_index.entries()
    ours = {name for name, info in suites.tasks().items() if info.path is not None}
    assert not {name for name in ours if name in theirs}
    foreign = {name for name, info in suites.tasks().items() if info.path is None}
    assert all(theirs[name].kind == "task" for name in foreign)


def test_rows_of_one_input_are_one_document():
    for name, rows in (("e2e", 2), ("webnlg", 1), ("common_gen", 3), ("dialogsum", 2), ("multi30k", 1)):
        documents = loaded(name).documents("test")
        assert len(documents) == hub_shapes.COUNT / rows, name
        assert {len(d.references) for d in documents} == {2 if name == "webnlg" else rows}
    first = loaded("e2e").documents("test")[0]
    assert first.references == (hub_shapes.sentence(0, 3), hub_shapes.sentence(1, 3))
    assert first.prompt == f"name[{hub_shapes.sentence(0)}] ="


def test_the_lock_says_what_was_written(mirror):
    kept = json.loads((mirror / "dlbench.lock.json").read_text())["mirrors"]
    assert kept["cnn_dm"]["dataset"] == "abisee/cnn_dailymail"  # once, though two suites read it
    assert kept["gsm8k"]["config"] == "main"
    for name, entry in kept.items():
        for split, said in entry["splits"].items():
            lines = (mirror / name / f"{split}.jsonl").read_text().splitlines()
            assert len(lines) == said["lines"] and len(said["sha256"]) == 64
    assert set(json.loads(lines[0])) >= {"question"} or name != "triviaqa"


def test_records_say_where_data_came_from(mirror, tmp_path):
    assert loaded("e2e").data == "tuetschek/e2e_nlg"
    assert loader.load_task("e2e", Sources(data_dir=str(mirror))).data == "a mirror of tuetschek/e2e_nlg"
    shutil.copytree(mirror / "e2e", tmp_path / "e2e")
    (tmp_path / "dlbench.lock.json").write_text(json.dumps({"mirrors": {"e2e": {"revision": "ab" * 20}}}))
    task = loader.load_task("e2e", Sources(data_dir=str(tmp_path)))
    assert task.data == f"a mirror of tuetschek/e2e_nlg at revision {'ab' * 20}"

    class Split:
        class info:
            download_checksums: ClassVar = {f"hf://datasets/openai/gsm8k@{'cd' * 20}/main/test.parquet": {}}

    assert mirrors.hub_revision({"test": Split}) == "cd" * 20


def test_the_command_says_what_it_wrote(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(hub)
    assert main(["prefetch", "e2e", "gsm8k", "--to", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"{tmp_path}/e2e  train 6, validation 6, test 6  (no revision: not from the hub)" in shown
    assert f"{tmp_path}/gsm8k  train 12, test 12" in shown
    assert main(["prefetch", "nano", "--to", str(tmp_path)]) == 2
    assert "has no dataset on the hub: its data comes with it" in capsys.readouterr().err


def test_alpaca_is_split_by_the_papers_seed():
    task = loaded("paper_alpaca")
    assert {s: len(task.inner.dataset[s]) for s in ("train", "validation", "test")} == {
        "train": 8, "validation": 2, "test": 2,
    }  # fmt: skip
    texts = [row["instruction"] for split in task.inner.dataset.values() for row in split]
    assert sorted(texts) == sorted(hub_shapes.sentence(i) for i in range(hub_shapes.COUNT))
    assert {d.prompt_tokens for d in task.documents("test")} == {128} and task.max_new_tokens == 300


def test_pocket_has_the_same_examples_in_all_prompts_and_never_the_track_of_the_task_without():
    for ours, theirs, shots in (("pocket_summary", "nano_summary", 3), ("pocket_data2text", "nano_data2text", 3)):
        few, zero = loaded(ours).documents("test"), loaded(theirs).documents("test")
        known = {d.prompt: d.references for d in zero}
        shown = few[0].prompt.split("\n\n")[:-1]
        for document in few:
            *examples, prompt = document.prompt.split("\n\n")
            assert examples == shown and len(examples) == shots and known[prompt] == document.references
            assert not any(example.startswith(prompt) for example in examples)
        assert loaded(ours).name == ours  # which tracks are named by
        for document in loaded(ours).documents("fit"):  # the first three are replaced in their own prompts
            *examples, prompt = document.prompt.split("\n\n")
            assert len(examples) == shots and not any(example.startswith(prompt) for example in examples)
    assert loaded("pocket_e2e").documents("test")[0].prompt.count("name[") == 4


def test_a_suite_leaves_out_what_has_no_mirror_unless_it_is_asked_for_by_name(mirror):
    missing = ["pocket_e2e", "pocket_dialogsum"]
    assert resolve.without_data(["pocket"], Sources()) == missing
    assert resolve.without_data(["pocket", "pocket_e2e"], Sources()) == missing[1:]
    assert resolve.without_data(["pocket"], Sources(data_dir=str(mirror))) == []
    assert resolve.without_data(["nano", "data2text"], Sources()) == []


def test_a_suite_says_how_many_documents_a_run_takes():
    asked = suites.sample_of("pocket")
    assert asked is not None and asked < resolve.DOCUMENTS
    assert resolve.documents_per_task(["pocket", "nano"]) == asked
    assert resolve.documents_per_task(["nano", "e2e"]) == resolve.DOCUMENTS
