"""The benchmark of a given model, on one so small that it takes seconds."""

import io
import json
from dataclasses import replace

import pytest
import small_model
from rich.console import Console

from dlbench import cli
from dlbench.bench import duration
from dlbench.bench.any_model import ModelBench, endless
from dlbench.bench.clock import Stopwatch
from dlbench.bench.decode import Generate
from dlbench.bench.models import Sizes, random_requests, sizes
from dlbench.bench.options import Options, Subject
from dlbench.bench.run import measure
from dlbench.bench.targets import BY_NAME, MODEL_PARTS
from dlbench.bench.workbench import Workbench
from dlbench.data.task_options import Sources
from dlbench.engine import Engine
from dlbench.models.loading import load

RATIOS = {
    "model_decode_vs_generate_b1": 1.2,
    "model_decode_vs_generate_b16": 1.2,
    "model_end_to_end_vs_lm_eval": 1.5,
    **{f"model_{name}50_b{batch}": None for name in ("static", "sequence", "token") for batch in (1, 16)},
    "model_token50_b16": 0.95,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def subject(folder):
    return Subject(str(folder), ("nano_math", "nano_summary"), Sources(fewshot=1))


def few(subject):
    return Sizes(quick=True, subject=subject, prompt=8, model_tokens=5, model_rounds=2, model_documents=2)


def test_a_model_is_timed_beside_its_peers(subject, tmp_path, capsys):
    out, printed = tmp_path / "bench.json", io.StringIO()
    console = Console(file=printed, width=80)
    measure(few(subject), device="cpu", dtype="float32", threads=1, parts=MODEL_PARTS, out=out, console=console)
    found = json.loads(out.read_text())
    assert {name: found["ratio_details"][name]["promise"] for name in found["ratios"]} == RATIOS
    assert all(detail["median"] > 0 and len(detail["values"]) == 2 for detail in found["ratio_details"].values())
    assert list(found["seconds"]) == list(MODEL_PARTS) and found["sizes"]["subject"]["sources"]["fewshot"] == 1
    names = {(m["group"], m["name"]) for m in found["measurements"]}
    assert names >= {(f"small, batch {b}", side) for b in (1, 16) for side in ("generate", "dlbench")}
    assert names >= {("small, 4 requests, batch 16", side) for side in ("lm-eval hf", "dlbench")}
    equal = [note for note in found["notes"] if " equal " in note]
    assert len(equal) == 3 and not any("for no such reason" in n and "0 for no such" not in n for n in equal)
    assert "takes at most about" in capsys.readouterr().err and "of 4 promises met" in printed.getvalue()


def test_both_sides_write_as_many_tokens_as_they_are_asked_for(folder):
    backbone = load(str(folder))
    requests = random_requests(3, 6, 9, backbone.vocabulary)
    likeliest = Engine(backbone).prefill(requests).decode()[0].tokens[2]
    settings = backbone.model.generation_config
    settings.eos_token_id = [likeliest, 2]
    assert min(len(g.tokens) for g in Engine(backbone).prefill(requests).decode()) < 9
    generate = Generate(backbone, requests, Stopwatch(backbone.device))
    with endless(backbone) as without:
        assert {len(g.tokens) for g in Engine(without).prefill(requests).decode()} == {9}
        generate()
        assert {len(tokens) for tokens in generate.written} == {9}
    assert settings.eos_token_id == [likeliest, 2] and backbone.tokenizer is not None


def test_the_forecast_grows_with_the_work(subject):
    def forecast(parts, **more):
        return ModelBench(Workbench(replace(few(subject), **more), "cpu", "float32", 1), subject).forecast(parts)

    both = forecast(MODEL_PARTS)
    assert 0 < both < 600 and forecast(("decode",), model_tokens=500) > forecast(("decode",)) > 0
    assert forecast(MODEL_PARTS, model_rounds=200) > both


@pytest.mark.parametrize("cuda", [False, True])
def test_races_of_its_own_models_last_as_long_as_their_patience(cuda):
    whole, quick = sizes(quick=False, cuda=cuda), sizes(quick=True, cuda=cuda)
    assert "about 4 minutes" in duration.expected(whole, ("decode",))  # two batch sizes
    wide = 6 if cuda else 4  # on a GPU batch 32 is a race of its own
    assert f"about {wide} minutes" in duration.expected(whole, ("wide",))
    assert "about 36 seconds" in duration.expected(quick, ("decode", "sweep"))
    assert "about 60 seconds" in duration.expected(whole, ("memory",))
    assert (duration.minutes(89), duration.minutes(600)) == ("89 seconds", "10 minutes")


def test_promises_of_a_model():
    assert {name: BY_NAME[name].bound for name in RATIOS} == RATIOS
    assert {BY_NAME[name].part for name in RATIOS} == set(MODEL_PARTS)


# ---- the command line


@pytest.fixture
def ran(monkeypatch):
    asked = []
    monkeypatch.setattr("dlbench.bench.run.execute", asked.append)
    return asked


def test_options_of_a_model(ran, folder, tmp_path):
    line = f"bench --model {folder} --task nano_math --fewshot 2 --data-dir {tmp_path} --only requests"
    assert cli.main(line.split()) == 0
    sources = Sources(str(tmp_path), fewshot=2)
    assert ran == [Options(only="requests", subject=Subject(str(folder), ("nano_math",), sources))]
    assert ran[0].parts() == ("requests",)


@pytest.mark.parametrize(
    ("options", "tasks", "shots"),
    [
        ("", ("pocket_data2text", "pocket_summary"), None),
        ("--quick", ("pocket_data2text",), None),
        ("--fewshot 0", ("pocket_data2text", "pocket_summary"), 0),
        ("--task nano_math", ("nano_math",), None),
    ],
)
def test_tasks_and_examples_by_default(ran, folder, options, tasks, shots):
    assert cli.main(f"bench --model {folder} {options}".split()) == 0
    (asked,) = ran
    assert (sorted(asked.subject.tasks), asked.subject.sources.fewshot) == (list(tasks), shots)


def test_nano_was_trained_without_examples(ran):
    assert cli.main(["bench", "--model", "nano"]) == 0
    assert ran[0].subject.sources.fewshot is None
    assert sorted(ran[0].subject.tasks) == ["nano_data2text", "nano_math", "nano_summary", "nano_translate"]


BAD = [
    ("--task nano_math", "--task and --fewshot are for a --model: give one"),
    ("--model ./nowhere", "no model folder ./nowhere"),
    ("--model nano --only sweep", "--only sweep: of a --model there is decode, requests"),
    ("--model nano --only decod", "unknown part of the benchmark 'decod': did you mean decode?"),
    ("--model nano --task nano_maths", "unknown task 'nano_maths'"),
    ("--model nano --fewshot -1", "fewshot -1: give 0 or more examples"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[options for options, _ in BAD])
def test_bad_options_are_one_line(ran, capsys, options, message):
    assert cli.main(["bench", *options.split()]) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("dlbench: ") and err.count("\n") == 1 and ran == []
