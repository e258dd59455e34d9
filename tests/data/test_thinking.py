"""Models that think before they answer: what is scored, where stops act, and what a record says of it."""

import pytest
import small_model
import tiny_models
import toy_task
from lm_eval.models.utils import postprocess_generated_text

from dlbench.cli import main
from dlbench.data.document import Document, cut, documents_sha256, with_thinking
from dlbench.data.thinking import PAIRS, Thinking, choose, mentioned
from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError
from dlbench.models.backbone import wrap
from dlbench.models.loading import embedded_folder, load
from dlbench.prompting.chat_template import ChatTemplate
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, Sample, Timing
from dlbench.running.config import RunSpec
from dlbench.running.planner import Planner
from dlbench.terminal.progress import Progress

THINK = Thinking("<think>", "</think>")
QWEN3 = (
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{%- if m.role == 'assistant' and '</think>' in m.content %}"
    "{{ m.content.split('</think>')[-1] }}{%- else %}{{ m.content }}{%- endif %}<|im_end|>\n{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{%- if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{%- endif %}{%- endif %}"
)
R1 = (
    "{%- for m in messages %}{%- if m.role == 'user' %}<|User|>{{ m.content }}{%- else %}<|Assistant|>"
    "{{ m.content.split('</think>')[-1] }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<|Assistant|><think>\n{%- endif %}"
)
MAGISTRAL = (
    "{%- for m in messages %}[INST]{{ m.content }}[/INST]{%- endfor %}{#- first draft your thinking within [THINK] and "
    "[/THINK] -#}"
)
PLAIN = "{%- for m in messages %}{{ m.role }}: {{ m.content }}\n{%- endfor %}"


@pytest.mark.parametrize(
    ("output", "answer", "unfinished"),
    [
        ("<think>\nlet me see\n\nyes\n</think>\n\n42", "42", False),
        ("let me see</think>42", "42", False),  # begun by the prompt, or not at all
        ("<think>a</think>b<think>c</think>d", "d", False),
        ("42", "42", False),
        ("  42", "42", False),
        ("<think></think>", "", False),
        ("<think>\nlet me see, and see, and", "", True),
        ("<think>a</think>b<think>c", "b<think>c", False),  # it is mentioned
        ("Qwen3 writes <think> first.", "Qwen3 writes <think> first.", False),
        ("<think>a</think>\n<think>b", "", True),
    ],
)
def test_the_answer_follows_the_thinking(output, answer, unfinished):
    assert THINK.answer(output) == answer and THINK.unfinished(output) == unfinished
    if not unfinished:
        assert answer == postprocess_generated_text(output, None, THINK.end)  # lm-eval's own
        stopped = postprocess_generated_text(output, ["2", "d"], THINK.end)
        assert cut(THINK.answer(output), ["2", "d"]) == stopped


def test_a_prompt_may_begin_the_thinking():
    opened = THINK.after("<|Assistant|><think>\n")
    assert opened.opened and not THINK.after("<|Assistant|>").opened
    assert not THINK.after("<|im_start|>assistant\n<think>\n\n</think>\n\n").opened
    assert opened.answer("yes, 42") == "" and opened.unfinished("yes, 42")
    assert opened.answer("yes</think>\n42") == "42" and not opened.unfinished("yes</think>\n42")
    unknown = Thinking("", "ANSWER").after("What?")  # nobody knows what begins it: the output is within
    assert unknown.answer("hm") == "" and unknown.answer("hm ANSWER 42") == "42"


@pytest.fixture(scope="module")
def tokenizer():
    return load("nano").tokenizer


def chat(tokenizer, template, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", template)
    return ChatTemplate(tokenizer, "00" * 32)


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (QWEN3, ("<think>", "</think>")),
        (R1, ("<think>", "</think>")),
        (MAGISTRAL, ("[THINK]", "[/THINK]")),
        (PLAIN, None),
        *((f"{PLAIN}{{#- {end} -#}}", (start, end)) for start, end in PAIRS),
    ],
)
def test_chat_templates_say_whether_a_model_thinks(template, found, tokenizer, monkeypatch):
    chat(tokenizer, template, monkeypatch)
    chosen = choose("auto", tokenizer, True)
    assert (None if chosen is None else (chosen.start, chosen.end)) == found
    assert choose("off", tokenizer, True) is None
    assert choose("auto", tokenizer, False) is None  # a prompt outside of it is continued, not answered


def test_templates_that_begin_the_thinking_are_noticed(tokenizer, monkeypatch):
    for source, opened in ((R1, True), (QWEN3, False)):
        template = chat(tokenizer, source, monkeypatch)
        prompt = template([{"role": "user", "content": "2 + 2?"}])
        document = Document("a", prompt, ("4",), 8, ("\n",), 0, None)
        (thinks,) = with_thinking([document], choose("auto", tokenizer, True))
        assert thinks.thinking.opened == opened
        assert thinks.answer("four</think>\n\n4\nmore") == "4" and document.answer("four</think>\n4") == "four</think>"


@pytest.mark.parametrize(
    ("asked", "start"),
    [("</think>", "<think>"), ("[/THINK]", "[THINK]"), ("</reason>", "<reason>"), ("Answer:", ""), ("END", "")],
)
def test_a_mark_of_ones_own_needs_no_template(asked, start, tokenizer):
    chosen = choose(asked, tokenizer, False)
    assert (chosen.start, chosen.end) == (start, asked)
    assert chosen.after("x").opened == (not start)


def test_marks_that_are_tokens_of_their_own_are_found_and_kept_in_texts(tmp_path, monkeypatch):
    """Special ones are not skipped (Magistral's are special, Qwen3's are not); lm-eval takes a token id for them."""
    from transformers import AutoTokenizer

    for special in (True, False):
        tokenizer = AutoTokenizer.from_pretrained(embedded_folder("nano"))
        names = ["[THINK]", "[/THINK]"]
        tokenizer.add_tokens(names, special_tokens=special)
        begin, end = tokenizer.convert_tokens_to_ids(names)
        chat(tokenizer, PLAIN, monkeypatch)
        chosen = choose("auto", tokenizer, True)
        assert (chosen.start, chosen.end) == ("[THINK]", "[/THINK]")
        assert choose(str(end), tokenizer, False) == chosen
        assert chosen.special == ((begin, end) if special else ())
        words = tokenizer(" let me see", add_special_tokens=False)["input_ids"]
        stop = [tokenizer.eos_token_id]
        tokens = [begin, *words, end, *words, *stop]
        text = chosen.text(tokenizer, tokens)
        assert "[THINK]" in text and "[/THINK]" in text and "</s>" not in text
        plain = tokenizer.decode(words)
        assert chosen.answer(text) == plain.lstrip()  # what lm-eval gives for think_end_token=<its id>
        assert tokenizer.decode(tokens[tokens.index(end) + 1 :], skip_special_tokens=True).lstrip() == plain.lstrip()


def test_an_id_that_is_no_mark_is_refused_in_one_line(tokenizer):
    space, part = tokenizer.convert_tokens_to_ids(["Ġ", "Ã"])  # white space, and half of a character
    for asked in ("99999999", str(10**30), str(space), str(part)):
        with pytest.raises(DlbenchError, match=f"think end token {asked}: .* give another id, or a mark") as error:
            choose(asked, tokenizer, False)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("outputs", "found"),
    [
        (["42", "a < b"], (0, "")),
        (["<think>\nhm</think>42", "<think>never ending", "plain"], (2, "</think>")),
        ([" [THINK]a", "begun before[/THINK]b", "x</think>y"], (3, "[/THINK]")),
        (["it is called <think>"], (0, "")),
    ],
)
def test_marks_that_nothing_takes_out_are_counted(outputs, found):
    assert mentioned(outputs) == found


@pytest.mark.parametrize("slots", [2, 6])
def test_stop_texts_act_in_the_answer_only(slots):
    """The first prefix of the free text whose answer holds the stop, by trying every prefix."""
    backbone = wrap(tiny_models.build("llama"), toy_task.Characters())
    tokenizer, prompts = backbone.tokenizer, tiny_models.prompts(6, seed=11)
    limit = 24
    engine = Engine(backbone)
    free = engine.prefill([Request(str(i), p, limit) for i, p in enumerate(prompts)], slots=slots).decode()
    texts = [tokenizer.decode(g.tokens) for g in free]
    cases = 0
    for opened in (True, False):
        requests, expected = [], []
        for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            end, start = text[9:11], "" if opened else text[2:4]
            stop = text[14]
            thinking = Thinking(start, end, opened=opened)
            requests.append(Request(str(i), prompt, limit, (stop,), thinking))
            lengths = [n for n in range(1, limit + 1) if stop in thinking.answer(text[:n])]
            expected.append(text[: lengths[0]] if lengths else text)
            plain = [n for n in range(1, limit + 1) if stop in text[:n]]
            cases += bool(lengths) and lengths[0] != plain[0]
        written = engine.prefill(requests, slots=slots).decode()
        assert [tokenizer.decode(g.tokens) for g in written] == expected
    assert cases  # in some texts the stop stands in the thinking too


def test_a_text_that_ends_within_its_thinking_still_ends():
    backbone = wrap(tiny_models.build("llama"), toy_task.Characters())
    (prompt,) = tiny_models.prompts(1, seed=11)
    free = Engine(backbone).prefill([Request("a", prompt, 12)]).decode()[0].tokens
    backbone.model.generation_config.eos_token_id = [free[4]]
    request = Request("a", prompt, 12, ("x",), Thinking("", "never", opened=True))
    assert Engine(backbone).prefill([request]).decode()[0].tokens == free[: free.index(free[4]) + 1]


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    """A random model whose chat template begins the thinking, which therefore never ends."""
    return small_model.save(tmp_path_factory.mktemp("thinking") / "thinker", chat=R1, context=1024)


def run(thinker, out, *more):
    line = ["run", "--model", str(thinker), "--task", "nano_summary", "--method", "static_skip", "--budget", "0.5"]
    assert main([*line, "--limit", "4", "--out", str(out), *more]) == 0
    found = {r.method.name: r for r in read_lines(out / "records.jsonl", Record)}
    samples = {s.id: s for s in read_lines(out / "samples" / f"{found['full'].key}.jsonl", Sample)}
    return found, samples


def test_a_run_says_and_counts_what_is_not_scored(thinker, tmp_path, capsys):
    found, samples = run(thinker, tmp_path / "on", "--chat-template", "on")
    shown, said = (" ".join(text.split()) for text in capsys.readouterr())
    assert "nano_summary on thinker: what is written up to </think> is not scored" in said
    assert "! nano_summary on thinker: 4 of 4 outputs hold no end of the thinking before the answer" in shown
    full = found["full"]
    assert full.task.think_end_token == "</think>" and full.quality.mean == 0
    assert "4 of 4 outputs hold no end of the thinking before the answer" in full.notes
    assert full.quality.extra["length_ratio_reference"] == 0
    assert full.compute.tokens.generated == sum(s.tokens.generated for s in samples.values()) > 40  # paid for
    assert all(len(s.output) > 10 for s in samples.values())  # and kept
    assert {t.batch_size for t in read_lines(tmp_path / "on" / "timing.jsonl", Timing)} == {1, 16}

    off, all_of_it = run(thinker, tmp_path / "off", "--chat-template", "on", "--think-end-token", "off", "--no-timing")
    assert off["full"].task.think_end_token is None and not off["full"].notes
    assert off["full"].key != full.key and off["full"].track != full.track
    assert {i: s.output for i, s in all_of_it.items()} == {i: s.output for i, s in samples.items()}  # no stop in them
    plain, _ = run(thinker, tmp_path / "plain", "--no-timing")
    assert plain["full"].task.think_end_token is None


def test_a_run_tells_marks_that_nothing_takes_out(thinker, tmp_path, capsys, monkeypatch):
    line = ["--think-end-token", "off", "--no-timing", "--processes", "1"]
    plain, samples = run(thinker, tmp_path / "out", *line)
    assert not plain["full"].notes
    outputs = [s.output for s in samples.values()]
    mark = next(c for c in outputs[0] if c.isalpha() and c.isascii())
    monkeypatch.setattr("dlbench.data.thinking.PAIRS", (("<never>", mark),))
    capsys.readouterr()
    found, _ = run(thinker, tmp_path / "out", *line)
    count = sum(mark in text for text in outputs)
    note = f"{count} of 4 outputs hold thinking, which is scored with the answer: --think-end-token '{mark}' scores "
    assert any(one.startswith(note) for one in found["full"].notes)
    assert f"! nano_summary on thinker: {note}" in " ".join(capsys.readouterr().out.split())


def test_methods_are_fitted_on_the_answers_too(thinker):
    spec = RunSpec((str(thinker),), ("nano_summary",), chat_template="on", limit=2)
    jobs = [Planner(s, "cpu", Progress(shown=False), 1, str).load()[0] for s in (spec, _off(spec))]
    (on, sha), (off, other) = (job.fit_documents for job in jobs)
    assert all(d.thinking == THINK.after("<think>") for d in on) and not any(d.thinking for d in off)
    assert sha != other == documents_sha256(off)
    assert [d.prompt for d in on] == [d.prompt for d in off]


def _off(spec):
    import dataclasses

    return dataclasses.replace(spec, think_end_token="off")


def test_a_mark_that_cannot_be_shown_is_refused(tmp_path, capsys):
    assert main(["run", "--think-end-token", "\n", "--out", str(tmp_path / "out")]) == 2
    assert "think end token '\\n': give auto, off, or a mark such as </think>" in capsys.readouterr().err


WRITES = """
task: own_thinks
custom_dataset: !function dlbench.tasks.jsonl.read
dataset_kwargs: {folder: FOLDER}
training_split: fit
test_split: test
doc_to_text: input
doc_to_target: references
process_results: !function dlbench.tasks.metrics.score_translate
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 20, do_sample: false}
metric_list:
  - {metric: chrf, aggregation: mean, higher_is_better: true}
  - {metric: exact, aggregation: mean, higher_is_better: true}
  - {metric: corpus_chrf, aggregation: !function dlbench.tasks.metrics.corpus_chrf, higher_is_better: true}
"""


def test_answers_and_scores_are_those_of_lm_eval(tmp_path):
    """lm-eval's own runner with think_end_token; nano "thinks" up to its last `n`, which every text of it has."""
    import logging

    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.disable(logging.WARNING)
    try:
        data = embedded_folder("nano").parents[1] / "data" / "nano_translate"
        for split in ("fit", "test"):
            lines = (data / f"{split}.jsonl").read_text().splitlines(keepends=True)
            (tmp_path / f"{split}.jsonl").write_text("".join(lines[:16]))
        path = tmp_path / "own_thinks.yaml"
        path.write_text(WRITES.replace("FOLDER", str(tmp_path)))
        model = str(embedded_folder("nano"))
        hf = HFLM(pretrained=model, device="cpu", dtype="float32", batch_size=5, think_end_token="n")
        manager = TaskManager(include_defaults=False)
        (task,) = manager.load([str(path)])["tasks"].values()
        theirs = simple_evaluate(hf, tasks=[task], log_samples=True, bootstrap_iters=0, task_manager=manager)
    finally:
        logging.disable(logging.NOTSET)
    line = [
        "run",
        "--model",
        model,
        "--task",
        str(path),
        "--method",
        "full",
        "--no-timing",
        "--limit",
        "all",
        "--processes",
        "1",
    ]
    assert main([*line, "--think-end-token", "n", "--out", str(tmp_path / "out")]) == 0
    (record,) = read_lines(tmp_path / "out" / "records.jsonl", Record)
    samples = list(read_lines(tmp_path / "out" / "samples" / f"{record.key}.jsonl", Sample))
    logged = {s["doc_id"]: s for s in theirs["samples"]["own_thinks"]}
    assert len(samples) == 16 and not any("hold no end" in note for note in record.notes)
    for place, sample in enumerate(samples):
        assert Thinking("", "n", opened=True).answer(sample.output) == logged[place]["resps"][0][0]
        assert sample.score == logged[place]["chrf"]
    assert record.quality.mean == pytest.approx(theirs["results"]["own_thinks"]["chrf,none"], rel=1e-12)
