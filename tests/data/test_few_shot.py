"""No example in a prompt tells the answer of its document, or of a scored one where methods are fitted."""

import re

import pytest
from test_splits import USED, asked, own, quiet_files  # noqa: F401

from dlbench.data import loader


def theirs(path):
    """Prompts of the scored split, as lm-eval builds them."""
    from lm_eval.tasks import TaskManager

    (task,) = TaskManager(include_defaults=False).load([path])["tasks"].values()
    task.set_fewshot_seed(1234)
    task.build_all_requests()
    return [instance.args[0] for instance in task.instances]


def shots(document):
    """Questions of a prompt's examples, with their answers, and the document's own question."""
    *before, last = document.prompt.split("\n\n")
    return [re.fullmatch(r"Q: (.*?) (\S+)", one).groups() for one in before], last.removeprefix("Q: ")


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("sampler", ["default", "first_n"])
def test_examples_from_the_scored_split_never_ask_what_their_document_asks(tmp_path, split, sampler):
    """Every question stands there twice, with another answer; lm-eval leaves out equal rows, of a test split only."""
    rows = asked(*range(12)) + [{"q": f"q {i}", "a": f"other{i}"} for i in range(12)]
    options = {"num_fewshot": 3, "fewshot_split": split, "fewshot_config": f"{{sampler: {sampler}}}"}
    used = {split: USED[split], "train": USED["train"]}
    path = own(tmp_path / "t", {split: rows, "train": asked(*range(50, 60))}, used, **options)
    documents, plain = loader.load_task(path).documents("test"), theirs(path)
    changed = 0
    for document, lm_eval in zip(documents, plain, strict=True):
        examples, question = shots(document)
        assert len(examples) == len(set(examples)) == 3 and question not in dict(examples)
        if f"Q: {question} " in lm_eval:
            changed += 1
            same = [one for one in lm_eval.split("\n\n")[:-1] if not one.startswith(f"Q: {question} ")]
            assert [one for one in document.prompt.split("\n\n") if one in same] == same
        else:
            assert document.prompt == lm_eval
    assert 0 < changed < len(documents)
    assert documents == loader.load_task(path).documents("test")


def test_fit_prompts_tell_neither_their_own_answers_nor_scored_ones(tmp_path):
    rows = {"train": asked(*range(30)), "test": asked(*range(20, 40))}
    path = own(tmp_path / "t", rows, num_fewshot=4, fewshot_split="train")
    task = loader.load_task(path)
    fitted = [shots(d) for d in task.documents("fit")]
    assert [question for _, question in fitted] == [f"q {i}" for i in range(20)]
    scored = {f"q {i}" for i in range(20, 40)}
    for examples, question in fitted:
        assert len(examples) == 4 and not dict(examples).keys() & {question, *scored}
    assert all(question not in dict(examples) for examples, question in map(shots, task.documents("test")))


def test_fit_prompts_of_a_fifth_have_examples_of_the_fifth(tmp_path):
    task = loader.load_task(own(tmp_path / "t", {"test": asked(*range(50))}, num_fewshot=2, fewshot_split="test"))
    fitted = [shots(d) for d in task.documents("fit")]
    apart = {question for _, question in fitted}
    assert len(apart) == 10
    for examples, question in fitted:
        assert len(examples) == 2 and dict(examples).keys() <= apart - {question}


def test_where_there_is_no_other_an_example_is_missing(tmp_path):
    rows = {"train": asked(0, 1), "test": asked(1, 2)}
    path = own(tmp_path / "t", rows, num_fewshot=2, fewshot_split="train")
    first, second = map(shots, loader.load_task(path).documents("test"))
    assert first == ([("q 0", "r0")], "q 1")
    assert sorted(second[0]) == [("q 0", "r0"), ("q 1", "r1")]
