"""`--task file:PATH.jsonl`: a user's documents, prompt and metric."""

import json

import pytest

from dlbench.data import loader, resolve
from dlbench.data.document import Document, documents_sha256
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.prompting.tokenize import encode_prompt
from dlbench.tasks import metrics


def write(path, count=20, before="", **more):
    path.write_text(
        "".join(
            json.dumps(
                {"input": f"{before}text {i}", "references": [f"one little text {i}", f"two little texts {i}"], **more}
            )
            + "\n"
            for i in range(count)
        )
    )
    return f"file:{path}"


def test_a_file_is_a_task_with_sensible_defaults(tmp_path):
    task = loader.load_task(write(tmp_path / "mine.jsonl"))
    assert (task.name, task.metric, task.max_new_tokens) == ("file:mine", "rougeL", 128)
    assert task.wants_chat and not task.is_loglikelihood
    scored, fitted = task.documents("test"), task.documents("fit")
    assert task.fit_split == "a fifth of test, not scored"
    assert len(scored) == 16 and len(fitted) == 4
    assert {d.prompt for d in scored} | {d.prompt for d in fitted} == {f"text {i}" for i in range(20)}
    assert not {d.id for d in scored} & {d.id for d in fitted}
    assert scored == task.documents("test", 100) and task.documents("test", 2) == scored[:2]


def test_the_prompt_is_the_template_filled(tmp_path):
    name = write(tmp_path / "mine.jsonl")
    task = loader.load_task(name, Sources(template=r"Say {input} in {other} words:\n"))
    assert task.documents("test", 1)[0].prompt.startswith("Say text ")
    assert task.documents("test", 1)[0].prompt.endswith(" in {other} words:\n")
    assert documents_sha256(task.documents("test")) != documents_sha256(loader.load_task(name).documents("test"))


@pytest.mark.parametrize("metric", metrics.of_files())
def test_every_metric_scores_a_reference_as_one(tmp_path, metric):
    task = loader.load_task(write(tmp_path / "mine.jsonl"), Sources(metric=metric))
    document = task.documents("test", 1)[0]
    assert task.metric == metric and metric in task.version
    assert task.score(document, document.references[1])[metric] == 1
    assert task.score(document, "nothing like it")[metric] < 0.3
    said = task.signature([document])
    assert metric in said or (metric == "rougeL" and "ROUGE" in said)
    if metric in ("bleu", "chrf"):
        assert task.corpus([document], [document.references[0]]) == 1


def test_a_folder_has_its_own_fit_split(tmp_path):
    folder = tmp_path / "mine.v2"
    folder.mkdir()
    write(folder / "train.jsonl", 3, "to learn from ")
    write(folder / "test.jsonl", 5)
    task = loader.load_task(f"file:{folder}")
    assert (task.name, task.fit_split) == ("file:mine.v2", "train")
    assert (len(task.documents("test")), len(task.documents("fit"))) == (5, 3)


def test_own_ids_are_kept(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"n{i}", "input": f"x{i}", "references": ["y"]}) + "\n" for i in range(5))
    )
    task = loader.load_task(f"file:{path}")
    assert {d.id for d in (*task.documents("test"), *task.documents("fit"))} == {f"n{i}" for i in range(5)}


def test_too_few_documents_are_all_scored(tmp_path):
    task = loader.load_task(write(tmp_path / "mine.jsonl", 4))
    assert len(task.documents("test")) == 4
    with pytest.raises(DlbenchError, match="'file:mine' has too few documents to fit on"):
        task.documents("fit")


def test_what_is_wrong_is_told(tmp_path):
    write(tmp_path / "mine.jsonl")
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "mine.jsonl")
    with pytest.raises(DlbenchError, match=r"no file nowhere\.jsonl: give a \.jsonl file"):
        resolve.expand_tasks(["file:nowhere.jsonl"])
    (tmp_path / "other" / "train.jsonl").write_text("")
    with pytest.raises(DlbenchError, match=r"no split 'test' in .*other: it holds mine\.jsonl, train\.jsonl"):
        resolve.expand_tasks([f"file:{tmp_path / 'other'}"])
    with pytest.raises(DlbenchError, match="two tasks are called file:mine"):
        resolve.expand_tasks([f"file:{tmp_path}/mine.jsonl", f"file:{tmp_path}/other/mine.jsonl"])
    for sources, message in [
        (Sources(template="no place"), "has no {input}"),
        (Sources(metric="rouge"), "unknown metric 'rouge': did you mean rougeL"),
        (Sources(data_dir="nowhere"), "no folder nowhere for --data-dir"),
        (Sources(include=("nowhere",)), "no folder nowhere for --include-path"),
        (Sources(fewshot=-1), "fewshot -1"),
        (Sources(max_new_tokens=0), "max new tokens 0"),
    ]:
        with pytest.raises(DlbenchError, match=message):
            sources.check(("file:x.jsonl",))
    with pytest.raises(DlbenchError, match=r"--metric is for tasks given as file:PATH\.jsonl"):
        Sources(metric="f1").check(("e2e",))


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ({"input": "half \ud83d a smile", "references": ["y"]}, r"a lone surrogate \(\\ud83d, character 6\)"),
        ({"input": "x", "references": ["y", "\udc00"]}, r"a lone surrogate \(\\udc00, character 1\)"),
        ({"input": "x", "references": ["y"], "id": "\ud800"}, "a lone surrogate"),
        ({"input": "x", "references": ["y"], "more": [{"deep": "\ud800"}]}, "a lone surrogate"),
        ({"input": " \n", "references": ["y"]}, '"input" must be a text that is not empty'),
    ],
)
def test_what_is_no_text_is_told_with_its_line(tmp_path, broken, what):
    path = tmp_path / "mine.jsonl"
    lines = [{"input": f"n {i}", "references": ["y"]} for i in range(3)]
    path.write_text("\n" + "".join(json.dumps(line) + "\n" for line in (*lines, broken)))  # a blank line counts
    with pytest.raises(DlbenchError, match=rf"mine\.jsonl, line 5: (holds )?{what}"):
        loader.load_task(f"file:{path}")


def test_whole_surrogate_pairs_and_backslashes_are_texts(tmp_path):
    path = tmp_path / "mine.jsonl"
    line = '{"input": "\\ud83d\\ude00 \\\\ud800 \\u00e9", "references": ["y"]}\n'
    path.write_text(line * 2)
    task = loader.load_task(f"file:{path}")
    assert {d.prompt for d in task.documents("test")} == {"\U0001f600 \\ud800 é"}


def test_a_prompt_without_a_token_is_told_with_its_line(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"input": x, "references": ["y"]}) + "\n" for x in ("a", "b", "\u200b", "c")))
    documents = loader.load_task(f"file:{path}").documents("test")
    assert [d.line for d in documents] == [1, 2, 3, 4]

    class Deaf:
        name = "deaf"

        def encode(self, text):
            return [] if text == "\u200b" else [5]

        context = 999

        def begins(self, ids):
            return False

        def check_ids(self, ids, what):
            assert max(ids) == 5

    with pytest.raises(DlbenchError, match=r"document test-2 \(line 3 of its file\): its prompt .* has no token"):
        [encode_prompt(Deaf(), d) for d in documents]


def test_texts_of_other_tasks_are_checked_too():
    for more in ({"prompt": "a\ud800"}, {"references": ("a\ud800",)}, {"pairs": (("a", "b\ud800"),)}):
        given = {"id": "d7", "prompt": "x", "references": ("y",), "limit": 1, "stop": (), "index": 0, **more}
        with pytest.raises(DlbenchError, match=r"^document d7: its .* a lone surrogate"):
            Document(**{"difficulty": None, **given}).check()
