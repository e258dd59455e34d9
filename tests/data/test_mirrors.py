"""Mirrors and files of documents: what is wrong with one is told by file and line."""

import json

import pytest

from dlbench.data import loader, mirrors
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError

LINE = '{"input": "a b", "references": ["c"]}\n'
BAD = {
    "not JSON": ('{"input": "a" "references": []}\n', "line 2: not JSON: Expecting ',' delimiter at column 15"),
    "cut off": ('{"input": "a', "line 2: not JSON: Unterminated string"),
    "no object": ("[1]\n", "line 2: not an object, but list"),
    "not UTF-8": (b'{"input": "\xff", "references": ["c"]}\n', "line 2: not UTF-8"),
    "no input": ('{"references": ["c"]}\n', 'line 2: "input" must be a text'),
    "blank input": ('{"input": " ", "references": ["c"]}\n', 'line 2: "input" must be a text'),
    "no references": ('{"input": "a"}\n', 'line 2: "references" must be a list with at least one text'),
    "empty references": ('{"input": "a", "references": []}\n', 'line 2: "references" must be a list with at least one'),
    "a text for references": ('{"input": "a", "references": "c"}\n', 'line 2: "references" must be a list'),
    "a blank reference": ('{"input": "a", "references": ["c", ""]}\n', 'line 2: every one of "references"'),
    "a reference that is none": ('{"input": "a", "references": [1]}\n', 'line 2: every one of "references"'),
    "an id for some": ('{"input": "a", "references": ["c"], "id": 1}\n', "line 2: either every document has an id"),
}


@pytest.mark.parametrize(("second", "message"), BAD.values(), ids=BAD)
def test_a_bad_line_is_told_by_its_number(tmp_path, second, message):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(LINE.encode() + (second if isinstance(second, bytes) else second.encode()))
    with pytest.raises(DlbenchError) as error:
        loader.load_task(f"file:{path}")
    assert message in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_an_id_that_comes_twice_is_told(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(f'{{"id": "{i}", "input": "a", "references": ["c"]}}\n\n' for i in "xyx"))
    with pytest.raises(DlbenchError, match="line 5: the id 'x' is that of line 1"):
        mirrors.read_documents(path)


def test_an_empty_file_is_told(tmp_path):
    (tmp_path / "mine.jsonl").write_text("\n \n")
    with pytest.raises(DlbenchError, match=r"mine\.jsonl is empty: give lines of"):
        mirrors.read_documents(tmp_path / "mine.jsonl")


def mirror(folder, name="e2e", splits=("train", "test"), count=3):
    (folder / name).mkdir()
    for split in splits:
        (folder / name / f"{split}.jsonl").write_text(
            "".join(
                json.dumps({"input": f"name[{split} {i}]", "references": [f"r{i}", f"s{i}"]}) + "\n"
                for i in range(count)
            )
        )
    return Sources(data_dir=str(folder))


def test_a_mirror_answers_for_the_hub(tmp_path):
    task = loader.load_task("e2e", mirror(tmp_path))
    assert [d.prompt for d in task.documents("test")] == [f"name[test {i}] =" for i in range(3)]
    assert task.documents("test", 1)[0].references == ("r0", "s0")
    assert [d.id for d in task.documents("fit")] == ["fit-0", "fit-1", "fit-2"] and task.fit_split == "train"


@pytest.mark.parametrize(("splits", "missing", "there"), [(("train",), "test", "train"), (("test",), "train", "test")])
def test_a_missing_split_is_told_with_what_there_is(tmp_path, splits, missing, there):
    sources = mirror(tmp_path, splits=splits)
    with pytest.raises(DlbenchError, match=rf"no split '{missing}' in .*e2e: it holds {there}\.jsonl"):
        loader.load_task("e2e", sources)


def test_a_changed_mirror_is_told(tmp_path):
    sources = mirror(tmp_path)
    path = tmp_path / "e2e" / "test.jsonl"
    entry = {"splits": {"test": {"sha256": mirrors.sha256(path), "lines": 3}}, "revision": "ab" * 20}
    (tmp_path / mirrors.LOCK).write_text(json.dumps({"mirrors": {"e2e": entry}}))
    assert loader.load_task("e2e", sources).documents("test")
    loader.load_task.cache_clear()
    path.write_text(path.read_text().replace("r1", "r9"))
    with pytest.raises(DlbenchError, match=r"test\.jsonl is not what dlbench\.lock\.json says"):
        loader.load_task("e2e", sources)


def test_a_damaged_lock_is_told(tmp_path):
    (tmp_path / mirrors.LOCK).write_text("{")
    with pytest.raises(DlbenchError, match=r"dlbench\.lock\.json is damaged"):
        mirrors.read_lock(tmp_path)


def test_documents_stand_for_the_columns_of_gsm8k(tmp_path):
    """lm-eval's own task, prompts, examples and filters, over documents of our form."""
    (tmp_path / "gsm8k").mkdir()
    for split in ("train", "test"):
        (tmp_path / "gsm8k" / f"{split}.jsonl").write_text(
            "".join(
                json.dumps({"input": f"{split} {i}?", "references": [f"It is {i}.\n#### {i}"]}) + "\n" for i in range(9)
            )
        )
    task = loader.load_task("gsm8k", Sources(data_dir=str(tmp_path)))
    document = task.documents("test", 1)[0]
    assert document.prompt.count("Question: train") == 5 and document.prompt.endswith("Question: test 0?\nAnswer:")
    assert task.score(document, " So it is 0.\n#### 0")["exact_match@strict-match"] == 1
    assert task.score(document, " So it is 0.")["exact_match@flexible-extract"] == 1
    assert task.score(document, " So it is 1.\n#### 1")["exact_match@strict-match"] == 0
    fewer = loader.load_task("gsm8k", Sources(data_dir=str(tmp_path), fewshot=0, max_new_tokens=7))
    assert fewer.documents("test", 1)[0].prompt == "Question: test 0?\nAnswer:"
    assert fewer.documents("test", 1)[0].limit == fewer.max_new_tokens == 7
    assert fewer.documents("test", 1)[0].stop == document.stop


def test_documents_cannot_stand_for_columns_nobody_knows(tmp_path):
    with pytest.raises(
        DlbenchError, match="reads the columns of Rowan/hellaswag: make its mirror by `dlbench prefetch"
    ):
        loader.load_task("hellaswag", mirror(tmp_path, "hellaswag", ("train", "validation")))


def test_no_network_is_one_line_that_says_what_to_do(tmp_path):
    for name in ("xsum_summary", "hellaswag"):
        with pytest.raises(DlbenchError) as error:
            loader.load_task(name, Sources(data_dir=str(tmp_path)))
        said = str(error.value)
        assert (
            f"run `dlbench prefetch {name} --to DIR`" in said and "hub cannot be reached" in said and "\n" not in said
        )
