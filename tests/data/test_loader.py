import json
import pickle
import socket

import pytest

from dlbench.data import loader, resolve, suites
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.tasks import jsonl, metrics

REFERENCES = {
    "nano_data2text": ["The inn is cheap.", "It is a cheap inn, and friendly."],
    "nano_summary": ["Ann meets Bob at noon."],
    "nano_math": ["3 + 4 = 7. answer: 7"],
    "nano_translate": ["vel tira mon"],
}


@pytest.fixture(scope="module", autouse=True)
def small_data(tmp_path_factory):
    """Six documents a split, in place of the real data."""
    root = tmp_path_factory.mktemp("suite")
    for name, references in REFERENCES.items():
        folder = root / "nano" / "data" / name
        folder.mkdir(parents=True)
        for split in jsonl.SPLITS:
            lines = [
                {
                    "id": f"{split}-{i}",
                    "input": f"data {{{{i}}}} = {i}" if split == "test" else f"data to fit on {i}",
                    "references": references,
                    "difficulty": 1 + i % 4,
                }
                for i in range(6)
            ]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_HERE", root)
        loader.load_task.cache_clear()
        yield root
    loader.load_task.cache_clear()


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def yaml_task(folder, name="own", **lines):
    """Write a task YAML with data beside it."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for split in jsonl.SPLITS:
        (data / f"{split}.jsonl").write_text(
            "".join(
                json.dumps({"id": f"{i}", "input": f"{split} {i}", "references": [f"r{i}"], "difficulty": 1}) + "\n"
                for i in range(8)
            )
        )
    settings = {
        "custom_dataset": "!function dlbench.tasks.jsonl.read",
        "dataset_kwargs": f"{{folder: {data}}}",
        "training_split": "fit",
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "input",
        "doc_to_target": "references",
        "process_results": "!function dlbench.tasks.metrics.score_summary",
        "generation_kwargs": '{until: ["\\n"], max_gen_toks: 9}',
        "metric_list": "[{metric: rougeL, aggregation: mean, higher_is_better: true}]",
        **lines,
    }
    path = folder / f"{name}.yaml"
    path.write_text(f"task: {name}\n" + "".join(f"{k}: {v}\n" for k, v in settings.items() if v is not None))
    return str(path)


def test_the_suite_expands_to_its_tasks_in_order():
    assert resolve.expand_tasks(["nano_math", "nano", "nano_math"]) == [
        "nano_math",
        "nano_data2text",
        "nano_summary",
        "nano_translate",
    ]


def test_listing_needs_no_lm_eval_and_agrees_with_it():
    listed = [info for info in resolve.list_tasks() if info.suite == "nano"]
    assert [info.name for info in listed] == list(suites.suites()["nano"])
    for info in listed:
        task = loader.load_task(info.name)
        assert (task.name, task.metric, task.version) == (info.name, info.metric, info.version)
        assert info.about and info.fit == task.fit_split == "fit"


@pytest.mark.parametrize("name", list(REFERENCES))
def test_a_reference_scores_one_and_nonsense_nothing(name, no_network, capsys):
    loader.load_task.cache_clear()
    task = loader.load_task(name)
    (document, *_) = documents = task.documents("test")
    assert [d.id for d in documents] == [f"test-{i}" for i in range(6)]
    assert document.prompt == "data {{i}} = 0", "a prompt must not be read as a template"
    assert document.references == tuple(REFERENCES[name])
    assert (document.stop, document.limit, document.difficulty) == (("\n\n",), task.max_new_tokens, 1)
    for reference in document.references:
        scores = task.score(document, f" {reference}\n\nbabble")
        assert tuple(scores) == task.metrics and next(iter(scores)) == task.metric
        assert set(scores.values()) == {1.0}
    assert task.score(document, "zzz")[task.metric] < 0.05
    assert task.score(document, "")[task.metric] == 0
    assert capsys.readouterr() == ("", "")


def test_limit_takes_a_prefix_and_splits_differ():
    task = loader.load_task("nano_summary")
    assert task.documents("test", 2) == task.documents("test")[:2]
    assert len(task.documents("test", 100)) == 6
    assert {d.split for d in task.documents("fit", 3)} == {"fit"}
    assert task.documents("fit")[0].id == "fit-0"


def test_several_references_are_not_any_overlap():
    task = loader.load_task("nano_data2text")
    document = task.documents("test", 1)[0]
    output = "The inn is expensive."
    score = task.score(document, output)["rougeL"]
    assert 0 < score < 1
    each = [task.choose_references(document, output, [i]) for i in range(2)]
    assert score == max(each) and each[0] != each[1]
    assert task.choose_references(document, output, [0, 1]) == score


def test_references_to_choose_from_are_needed():
    task = loader.load_task("nano_math")
    with pytest.raises(ValueError, match="no references to choose from"):
        task.choose_references(task.documents("test", 1)[0], "answer: 7", [0])


def test_corpus_scores_only_where_the_task_names_one():
    summary, data = loader.load_task("nano_summary"), loader.load_task("nano_data2text")
    documents = data.documents("test")
    assert summary.corpus(summary.documents("test"), ["x"] * 6) is None
    assert data.corpus([], []) is None
    assert data.corpus(documents, [d.references[1] for d in documents]) == 1
    half = data.corpus(documents, [documents[0].references[0]] * 3 + ["The inn was not so cheap."] * 3)
    assert half == pytest.approx(
        metrics.corpus_bleu(
            [
                (list(d.references), t)
                for d, t in zip(documents, ["The inn is cheap."] * 3 + ["The inn was not so cheap."] * 3, strict=True)
            ]
        )
    )
    assert 0 < half < 1


def test_a_system_instruction_stands_before_every_prompt_and_is_the_message_of_a_chat():
    sources = Sources(system_instruction="Be brief.")
    plain, told = (loader.load_task("nano_summary", s) for s in (Sources(), sources))
    for split in ("test", "fit"):
        pairs = zip(plain.documents(split, 2), told.documents(split, 2), strict=True)
        assert all(b.prompt.startswith("Be brief.") and b.prompt.endswith(a.prompt) for a, b in pairs)
    seen = []

    def chat(messages, add_generation_prompt=True):
        seen.append(messages)
        return " ".join(m["content"] for m in messages)

    told.documents("test", 1, chat)
    assert [m["role"] for m in seen[0]] == ["system", "user"] and seen[0][0]["content"] == "Be brief."


def test_a_task_survives_pickling():
    task = loader.load_task("nano_translate")
    assert pickle.loads(pickle.dumps(task)).name == "nano_translate"


def test_a_task_file_by_path(tmp_path):
    path = yaml_task(tmp_path)
    assert resolve.expand_tasks([path]) == [path]
    task = loader.load_task(path)
    assert (task.name, task.max_new_tokens) == ("own", 9)
    assert task.documents("test", 1)[0].stop == ("\n",)
    assert pickle.loads(pickle.dumps(task)).name == "own"


def test_few_shot_prompts_do_not_depend_on_what_was_asked_before(tmp_path):
    path = yaml_task(tmp_path, num_fewshot=2, fewshot_split="fit")
    task = loader.load_task(path)
    first = [d.prompt for d in task.documents("test")]
    task.documents("fit", 3)
    assert [d.prompt for d in task.documents("test", 4)] == first[:4]
    assert first[0].count("\n\n") == 2 and "fit " in first[0] and first[0].endswith("test 0")


def test_several_filters_are_told_apart(tmp_path):
    strict = "{name: strict, filter: [{function: regex, regex_pattern: '(r0)$'}, {function: take_first}]}"
    loose = "{name: loose, filter: [{function: regex, regex_pattern: '(r.)'}, {function: take_first}]}"
    task = loader.load_task(yaml_task(tmp_path, filter_list=f"[{strict}, {loose}]"))
    assert task.metrics == ("rougeL@strict", "rougeL@loose")
    assert task.score(task.documents("test", 1)[0], "r0 or so") == {"rougeL@strict": 0.0, "rougeL@loose": 1.0}


def test_a_task_with_nothing_but_a_corpus_metric_scores_documents_as_corpora_of_one(tmp_path):
    task = loader.load_task(
        yaml_task(
            tmp_path,
            process_results=None,
            doc_to_target="'{{references[0]}}'",
            metric_list="[{metric: bleu, aggregation: bleu, higher_is_better: true}]",
        )
    )
    documents = task.documents("test", 2)
    assert task.metrics == ("bleu",)
    assert task.score(documents[0], "nothing of it")["bleu"] == 0
    assert task.corpus(documents, ["a", "b"]) == 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"output_type": "loglikelihood_rolling", "generation_kwargs": None}, "is a loglikelihood_rolling task"),
        ({"dataset_kwargs": "{folder: /nowhere}"}, "cannot be loaded: FileNotFoundError"),
        ({"process_results": "!function dlbench.tasks.metrics.nothing"}, "cannot be loaded: AttributeError"),
        ({"unsafe_code": "true"}, "runs generated code"),
    ],
)
def test_a_task_that_cannot_be_run_is_told(tmp_path, lines, message):
    with pytest.raises(DlbenchError, match=message):
        loader.load_task(yaml_task(tmp_path, **lines))


def test_a_bad_line_of_data_is_named(tmp_path):
    path = yaml_task(tmp_path)
    (tmp_path / "data" / "fit.jsonl").write_text(
        '{"id": "1", "input": "x", "references": ["y"], "difficulty": 1}\n{"id": 2}\n'
    )
    with pytest.raises(DlbenchError, match=r"fit\.jsonl, line 2: not a document"):
        loader.load_task(path)


def test_a_slip_in_one_of_our_names_is_told_at_once():
    with pytest.raises(DlbenchError, match="unknown task 'nano_mth': did you mean nano_math"):
        resolve.expand_tasks(["nano_mth"])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 x 4 = 12. answer: 12", 12),
        ("Answer:  -1,250.0", -1250),
        ("answer: 3 no, answer: 4", 4),
        ("answer: 12.", 12),
        ("the answer is 5", None),
        ("answer: none", None),
    ],
)
def test_answers_are_numbers(text, number):
    assert metrics.answer(text) == number


def test_rouge_agrees_with_a_plain_longest_common_subsequence():
    def f1(a, b):
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
        common = table[-1][-1]
        return 2 * common / (len(a) + len(b))

    output, references = "a b c d e f g", ["a x c d y", "g f e d c b a", "b d f"]
    assert metrics.rouge(output, references)["rougeL"] == pytest.approx(
        max(f1(output.split(), reference.split()) for reference in references)
    )


@pytest.mark.parametrize(
    ("output", "references", "f1", "exact"),
    [
        ("The Cat's mat.", ["a cats mat"], 1, 1),
        ("in the red house", ["a red house", "blue"], 0.8, 0),  # in red house, red house
        ("red red", ["red"], 2 / 3, 0),
        ("", ["the"], 1, 1),  # two texts without words
        ("", ["red"], 0, 0),
    ],
)
def test_short_answers_are_compared_by_their_words(output, references, f1, exact):
    assert metrics.word_f1(output, references) == pytest.approx(f1)
    assert metrics.answer_exact(output, references) == exact


def test_signatures_name_libraries_releases_and_references():
    import sacrebleu

    said = metrics.signature(
        ["rougeL", "rouge1", "bleu", "corpus_bleu"], "score_data2text", [["a", "b"], ["a", "b", "c"]]
    )
    assert "rouge-score" in said and "no stemming" in said and said.count("ROUGE") == 1
    assert f"eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}" in said and said.count("nrefs:var") == 2
    assert "nrefs:1|" in metrics.signature(["corpus_chrf"], "score_translation", [["a"]])
    assert "answer:" in metrics.signature(["exact"], "score_math", [["a"]])


def test_corpus_bleu_takes_documents_with_different_numbers_of_references():
    pairs = [(["a b c d e"], "a b c d e"), (["x y z w", "p q r s t"], "p q r s t")]
    assert metrics.corpus_bleu(pairs) == 1
    assert metrics.corpus_chrf(pairs) == 1
