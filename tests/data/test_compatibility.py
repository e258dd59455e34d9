"""Tasks of lm-eval and of users' folders: found by name, split, and refused where lm-eval's score would mislead."""

import json

import pytest

from dlbench.data import lm_eval_index, loader, resolve, splits, suites
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError

OPTIONS = {
    "dataset_path": "json",
    "output_type": "generate_until",
    "doc_to_text": "'Q: {{q}}\\nA:'",
    "doc_to_target": "'{{a}}'",
    "generation_kwargs": '{until: ["\\n"], max_gen_toks: 5}',
    "metric_list": "[{metric: exact_match, aggregation: mean, higher_is_better: true}]",
}


def write(folder, name="own", parts=("test",), count=20, **options):
    """A task YAML as users write them, over JSON files read by `datasets`; returns its path."""
    folder.mkdir(exist_ok=True)
    files = {}
    for split in parts:
        files[split] = folder / f"{split}.jsonl"
        files[split].write_text(
            "".join(
                json.dumps({"q": f"{split} {i}", "a": f"r{i}", "many": [f"r{i}", f"s{i}"]}) + "\n" for i in range(count)
            )
        )
    used = {"train": "training_split", "validation": "validation_split", "test": "test_split"}
    listed = json.dumps({split: str(path) for split, path in files.items()})
    settings = {**OPTIONS, "dataset_kwargs": f"{{data_files: {listed}}}", **{used[s]: s for s in parts}, **options}
    path = folder / f"{name}.yaml"
    path.write_text(f"task: {name}\n" + "".join(f"{k}: {v}\n" for k, v in settings.items() if v is not None))
    return str(path)


@pytest.fixture(autouse=True)
def quiet_files(tmp_path, monkeypatch):
    """The cache of `datasets` is a test's own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize(
    ("parts", "fit", "scored"),
    [
        (("train", "validation", "test"), "train", 20),
        (("train", "validation"), "train", 20),
        (("validation", "test"), "validation", 20),
        (("test",), "a fifth of test, not scored", 16),
        (("validation",), "a fifth of validation, not scored", 16),
    ],
)
def test_what_is_fitted_on_is_never_scored(tmp_path, parts, fit, scored):
    task = loader.load_task(write(tmp_path / "t", parts=parts))
    assert task.fit_split == fit
    tested, fitted = task.documents("test"), task.documents("fit")
    assert len(tested) == scored and len(fitted) == (20 if scored == 20 else 4)
    assert not {d.prompt for d in tested} & {d.prompt for d in fitted}
    assert [d.index for d in tested] == sorted(d.index for d in tested)
    assert {d.split for d in fitted} == {"fit"}
    assert task.score(fitted[0], fitted[0].references[0])["exact_match"] == 1  # its row is found in either split


def test_the_fifth_is_chosen_by_hash_not_by_place(tmp_path):
    task = loader.load_task(write(tmp_path / "t", count=100))
    chosen = [d.index for d in task.documents("fit")]
    assert len(chosen) == 20 and chosen == sorted(chosen) and chosen != list(range(20)) and max(chosen) > 50


def test_a_large_fit_split_is_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "FIT_DOCUMENTS", 30)
    task = loader.load_task(write(tmp_path / "t", parts=("train", "test"), count=50))
    places = [d.index for d in task.documents("fit")]
    assert len(places) == 30 and places == sorted(places) and max(places) > 30
    assert len(task.documents("fit", whole=True)) == 50
    assert len(task.documents("test")) == 50


def test_examples_are_drawn_as_lm_eval_draws_them_though_a_fifth_stands_apart(tmp_path):
    path = write(tmp_path / "t", num_fewshot=2, fewshot_split="test")
    task = loader.load_task(path)
    from lm_eval.tasks import TaskManager

    (theirs,) = TaskManager(include_defaults=False).load([path])["tasks"].values()
    theirs.set_fewshot_seed(1234)
    theirs.build_all_requests()
    prompts = [instance.args[0] for instance in theirs.instances]
    assert {d.index: d.prompt for d in task.documents("test")} == {
        d.index: prompts[d.index] for d in task.documents("test")
    }


def test_several_references_that_lm_eval_would_round_are_refused(tmp_path):
    for metric in ("bleu", "f1"):
        listed = f"[{{metric: {metric}, aggregation: mean, higher_is_better: true}}]"
        with pytest.raises(DlbenchError, match=f"lm-eval makes 1.0 out of any {metric} above 0"):
            loader.load_task(write(tmp_path / metric, doc_to_target="many", metric_list=listed))
    exact = loader.load_task(write(tmp_path / "exact", doc_to_target="many"))
    document = exact.documents("test", 1)[0]
    assert exact.score(document, document.references[1])["exact_match"] == 1
    assert exact.score(document, "r")["exact_match"] == 0


def test_what_cannot_be_paired_or_weighed_is_refused(tmp_path):
    choices = {
        "output_type": "multiple_choice",
        "doc_to_choice": '\'["a", "b"]\'',
        "doc_to_target": "0",
        "generation_kwargs": None,
    }
    mcc = "[{metric: mcc, aggregation: matthews_corrcoef, higher_is_better: true}]"
    with pytest.raises(DlbenchError, match="has no metric per document, only mcc of a whole corpus"):
        loader.load_task(write(tmp_path / "a", **choices, metric_list=mcc))
    with pytest.raises(DlbenchError, match="asks for 3 outputs per document"):
        loader.load_task(write(tmp_path / "c", repeats=3))
    with pytest.raises(DlbenchError, match="is a loglikelihood_rolling task"):
        loader.load_task(
            write(tmp_path / "b", output_type="loglikelihood_rolling", generation_kwargs=None, metric_list=None)
        )


def test_a_folder_of_ones_own_is_found_by_name_tag_and_group(tmp_path):
    write(tmp_path / "mine", "mine_a", tag="mine_both")
    write(tmp_path / "mine", "mine_b", tag="mine_both")
    (tmp_path / "mine" / "group.yaml").write_text("group: mine_all\ntask: [mine_b, mine_a]\n")
    sources = Sources(include=(str(tmp_path / "mine"),))
    assert resolve.expand_tasks(["mine_all"], sources) == ["mine_b", "mine_a"]
    assert resolve.expand_tasks(["mine_both", "gsm8k"], sources) == ["mine_a", "mine_b", "gsm8k"]
    assert loader.load_task("mine_a", sources).documents("test", 1)[0].prompt.startswith("Q: test ")
    with pytest.raises(DlbenchError, match="unknown task 'mine_c': did you mean mine_"):
        resolve.expand_tasks(["mine_c"], sources)


def test_a_name_of_ours_cannot_be_taken(tmp_path):
    write(tmp_path / "mine", "e2e")
    with pytest.raises(DlbenchError, match="names a task 'e2e', which dlbench has: rename it"):
        resolve.expand_tasks(["whatever"], Sources(include=(str(tmp_path / "mine"),)))


@pytest.mark.parametrize("how", ["path", "folder"])
def test_a_yaml_that_is_none_is_one_line(tmp_path, how):
    bad = tmp_path / "mine" / "bad.yaml"
    bad.parent.mkdir()
    bad.write_text("task: bad\ndoc_to_text: [1,\nmetric: }\n")
    with pytest.raises(DlbenchError) as error:
        if how == "path":
            loader.load_task(str(bad))
        else:
            resolve.expand_tasks(["bad"], Sources(include=(str(bad.parent),)))
    said = str(error.value)
    assert "bad.yaml" in said and "line" in said and "\n" not in said


def test_an_included_file_that_is_missing_is_one_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("task: mine\ninclude: nowhere\n")
    with pytest.raises(DlbenchError, match="nowhere cannot be read: No such file"):
        loader.load_task(str(path))


def test_the_index_of_a_folder_is_that_of_lm_eval(tmp_path):
    """Groups, tags, classes, includes, doubles, quotes and broken files."""
    root = tmp_path / "tasks"
    (root / "deep" / "er").mkdir(parents=True)
    files = {
        "a.yaml": 'tag:\n  - t1\n  - t2\n"task": "a"\noutput_type: multiple_choice\n',
        "b.yaml": "include: _part\ntask: b # a remark\n",
        "_part": "task: never\ntag: t1\noutput_type: loglikelihood\ndoc_to_text: |\n  task: not this\n",
        "deep/c.yaml": "include: ../_part\ntask: c\ntag: [t3]\n",
        "deep/er/c.yaml": "task: c\noutput_type: never_seen\n",
        "g.yaml": "group: g\ntask:\n- a\n- b\n- task: c\n  num_fewshot: 1\ntag: t9\n",
        "p.yaml": "task: p\nclass: !function whatever.Class\n",
        "broken.yaml": "task: [\n",
        "none.yaml": "doc_to_text: x\n",
        "__pycache__/x.yaml": "task: x\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    from lm_eval.tasks._index import TaskIndex

    theirs = TaskIndex.build([root])
    ours = lm_eval_index.scan(root)
    assert list(ours) and set(ours) == set(theirs) == {"a", "b", "c", "g", "p", "t1", "t2", "t3"}
    kinds = {"TASK": "task", "PY_TASK": "python", "GROUP": "group", "TAG": "tag"}
    for name, entry in theirs.items():
        assert ours[name].kind == kinds[entry.kind.name]
        assert ours[name].path == (str(entry.yaml_path) if entry.yaml_path else None)
    assert ours["t1"].members == ("a", "b") and ours["g"].members == ("a", "b", None)
    assert [ours[n].output_type for n in "abc"] == ["multiple_choice", "loglikelihood", "loglikelihood"]
    with pytest.raises(DlbenchError, match=r"broken\.yaml is no task YAML"):
        lm_eval_index.scan(root, strict=True)


@pytest.mark.slow
def test_the_whole_index_is_that_of_lm_eval():
    from lm_eval.tasks import TaskManager

    theirs, ours = TaskManager().task_index, lm_eval_index.entries()
    assert len(ours) > 10_000 and set(ours) == set(theirs)
    for name, entry in theirs.items():
        assert ours[name].path == (str(entry.yaml_path) if entry.yaml_path else None)
        if entry.kind.name == "TAG":
            assert set(ours[name].members) == entry.tags


@pytest.fixture
def no_index(tmp_path, monkeypatch):
    """No index on disk, and none in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lm_eval_index._entries.cache_clear()
    yield
    lm_eval_index._entries.cache_clear()


def test_the_index_is_read_once_and_kept(tmp_path, monkeypatch, no_index):
    scans = []
    scan = lm_eval_index.scan
    monkeypatch.setattr(lm_eval_index, "scan", lambda root, **more: scans.append(root) or scan(tmp_path / "small"))
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "a.yaml").write_text("task: a\ntag: t\n")
    first = lm_eval_index.entries()
    lm_eval_index._entries.cache_clear()
    assert lm_eval_index.entries() == first and set(first) == {"a", "t"} and len(scans) == 1
    (kept,) = (tmp_path / "dlbench").iterdir()
    kept.write_text("{")
    lm_eval_index._entries.cache_clear()
    assert lm_eval_index.entries() == first and len(scans) == 2  # a damaged file is made again


def test_lists_name_tasks_of_both(capsys):
    from dlbench.cli import main

    assert main(["list", "tasks"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*suites.suites(), *suites.tasks()))
    assert "arc_easy" not in shown
    assert main(["list", "tasks", "--all"]) == 0
    everything = capsys.readouterr().out
    assert "arc_easy" in everything and everything.startswith(shown)


def test_splits_read_nothing_before_they_are_asked():
    class Inner:
        """Whatever is asked of it fails."""

    splits.Splits("x", Inner())
