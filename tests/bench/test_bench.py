"""The whole benchmark on models so small that it takes seconds."""

import io
import json
import math
from types import SimpleNamespace

import pytest
from rich.console import Console

from dlbench import cli
from dlbench.bench import run
from dlbench.bench.clock import Repeats
from dlbench.bench.decode import EverySecond, bytes_per_step, same_tokens
from dlbench.bench.models import Shape, Sizes, random_llama, random_requests, random_texts, sizes, word_tokenizer
from dlbench.bench.options import Options
from dlbench.bench.report import show
from dlbench.bench.requests import Ours, compare, race_of
from dlbench.bench.run import machine_facts, measure
from dlbench.bench.sweep import configurations
from dlbench.bench.targets import BY_NAME, PARTS, TARGETS
from dlbench.bench.workbench import Ratio, Series, Workbench
from dlbench.engine import Engine, Generation

TINY = Shape(4, 32, 2, 48, 97)
SIZES = Sizes(
    quick=True,
    narrow=TINY,
    wide=TINY,
    prompt=8,
    narrow_tokens=5,
    narrow_rounds=2,
    wide_tokens=5,
    wide_rounds=2,
    documents=1,
    request_batches=(2,),
    request_rounds=1,
    sweep_prompts=3,
    sweep_lengths=(6, 9),
    sweep_tokens=4,
    sweep_rounds=2,
    memory_rounds=1,
    start_rounds=1,
)
REQUIRED = {
    "decode_vs_generate_b1",
    "decode_vs_generate_b16",
    "decode_stock_vs_generate_b1",
    "decode_stock_vs_generate_b16",
    "decode_vs_generate_wide",
    "half_project_b1",
    "half_project_b16",
    "end_to_end_vs_lm_eval",
    "static50_vs_ideal",
    "token50_vs_ideal_b1",
    "token50_vs_dense_b16",
    "sweep_speedup_vs_lm_eval",
    "peak_memory_ratio",
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What a tiny run printed, and the JSON that it wrote."""
    out = tmp_path_factory.mktemp("bench") / "bench.json"
    printed = io.StringIO()
    console = Console(file=printed, width=80)
    measure(SIZES, device="cpu", dtype="float32", threads=1, out=out, console=console)
    return printed.getvalue(), json.loads(out.read_text())


def test_a_run_that_is_cut_off_leaves_what_it_had(tmp_path, monkeypatch):
    out = tmp_path / "bench.json"

    def one(bench):
        bench.say("a group")
        bench.ratio("half_project_b1", [1.6, 1.8, 1.71])

    def cut(bench):
        bench.say("another group")
        raise KeyboardInterrupt

    monkeypatch.setitem(run._RUN, "decode", one)
    monkeypatch.setitem(run._RUN, "wide", cut)
    with pytest.raises(KeyboardInterrupt):
        measure(SIZES, device="cpu", dtype="float32", parts=("decode", "wide"), out=out)
    found = json.loads(out.read_text())
    assert found["ratios"] == {"half_project_b1": 1.71} and list(found["seconds"]) == ["decode"]


def test_every_required_ratio_is_there(measured):
    _, found = measured
    assert set(found["ratios"]) >= REQUIRED
    assert all(math.isfinite(value) and value > 0 for value in found["ratios"].values())
    assert found["quick"] is True and list(found["seconds"]) == list(PARTS)


def test_every_number_comes_with_its_repeats(measured):
    _, found = measured
    for name, detail in found["ratio_details"].items():
        assert detail["median"] == found["ratios"][name] == Repeats(tuple(detail["values"])).median
        assert detail["q25"] <= detail["median"] <= detail["q75"] and detail["meaning"]
        assert detail["met"] == (None if detail["promise"] is None else detail["median"] >= detail["promise"])
    assert {entry["part"] for entry in found["measurements"]} == set(PARTS)
    for entry in found["measurements"]:
        assert entry["unit"] and entry["median"] == Repeats(tuple(entry["values"])).median > 0


def test_the_machine_is_described(measured):
    _, found = measured
    machine = found["machine"]
    assert machine["device"] == "cpu" and machine["threads"] == 1 and machine["processor"]
    assert set(machine["versions"]) == {"dlbench", "python", "torch", "transformers", "lm_eval"}


def test_both_sides_write_the_same(measured):
    _, found = measured
    remarks = [note for note in found["notes"] if "equal" in note]
    assert len(remarks) == 8
    assert not any("no such reason" in note and "0 for no such reason" not in note for note in remarks)


def test_the_tables_fit_eighty_columns(measured):
    printed, found = measured
    assert max(map(len, printed.splitlines())) <= 80
    assert all(name in printed for name in found["ratios"])
    assert "warm-up" in printed and "≥ 1.30" in printed


@pytest.mark.parametrize("width", [80, 120])
def test_promises_are_marked_honestly(width):
    bench = Workbench(SIZES, "cpu", "float32", 1)
    bench.ratio("half_project_b1", [1.6, 1.8, 1.71])
    bench.ratio("half_project_b16", [1.6, 1.8, 1.69])
    bench.ratio("half_project_paid_b1", [0.1])
    bench.series.append(Series("decode", "a group", "a name", "ms/step", Repeats((1.0, 2.0)), 3.0))
    printed = io.StringIO()
    show(Console(file=printed, width=width), bench, machine_facts("cpu"), {"decode": 3.0})
    lines = {line.split()[0]: line for line in printed.getvalue().splitlines() if line.strip()}
    assert max(map(len, printed.getvalue().splitlines())) <= width
    assert "1 of 2 promises met; missed: half_project_b16" in printed.getvalue()
    if width == 120:
        assert " met " in lines["half_project_b1"] and "missed" in lines["half_project_b16"]
        assert "met" not in lines["half_project_paid_b1"].split()


def test_a_promise_that_is_just_met_is_met():
    bound = BY_NAME["half_project_b1"].bound
    assert Ratio(BY_NAME["half_project_b1"], Repeats((bound,))).met is True
    assert Ratio(BY_NAME["static50_b1"], Repeats((0.1,))).met is None


def test_the_worse_batch_size_counts():
    bench = Workbench(SIZES, "cpu", "float32", 1)
    bench.ratio("static50_vs_ideal_b1", [0.95])
    bench.ratio("static50_vs_ideal_b16", [0.8, 0.9], "how")
    bench.worse_of("static50_vs_ideal", {"static50_vs_ideal_b1": "batch 1", "static50_vs_ideal_b16": "batch 16"})
    assert bench.ratios["static50_vs_ideal"].value == pytest.approx(0.85)
    assert bench.ratios["static50_vs_ideal"].how == "batch 16: how"


def test_promises_belong_to_parts():
    assert {target.part for target in TARGETS} == set(PARTS) - {"start"}
    assert len(BY_NAME) == len(TARGETS) and set(BY_NAME) >= REQUIRED


@pytest.mark.parametrize("cuda", [False, True])
def test_quick_is_less_of_the_same(cuda):
    whole, quick = sizes(quick=False, cuda=cuda), sizes(quick=True, cuda=cuda)
    assert quick.quick and not whole.quick
    assert (whole.wide.layers, quick.wide.layers) == (24, 6) and whole.narrow == quick.narrow
    assert 4 * whole.documents >= 200 and 4 * quick.documents == 60
    assert quick.narrow_rounds < whole.narrow_rounds and quick.patience < whole.patience
    assert whole.wide_batches == ((1, 32) if cuda else (1, 16))


def test_a_sweep_is_twelve_configurations():
    methods = configurations()
    assert len(methods) == 12 and methods[0] is None
    assert len({(type(m).__name__, str(m and m.params())) for m in methods}) == 12


def test_even_and_odd_layers_in_turns():
    backbone = random_llama(TINY, device="cpu", dtype="float32")
    wave = Engine(backbone).prefill(random_requests(2, 6, 5, TINY.vocabulary))
    always, turns = wave.decode(EverySecond()), wave.decode(EverySecond(turns=True))
    assert all(g.layers == [2, 2, 2, 2] for g in (*always, *turns))
    # What is owed to layers that never run is never asked for; in turns, all but the last step's is.
    assert all(g.flops["kv"] == 0 for g in always)
    assert len({g.flops["kv"] for g in turns}) == 1 and turns[0].flops["kv"] > 0


def test_a_prompt_of_words_has_as_many_tokens():
    tokenizer = word_tokenizer(97)
    texts = random_texts(5, (6, 14), 97)
    assert sorted(len(tokenizer(text)["input_ids"]) for text in texts) == [6, 8, 10, 12, 14]
    assert tokenizer.decode(tokenizer(texts[0])["input_ids"]) == texts[0]


def test_bytes_of_a_step():
    backbone = random_llama(TINY, device="cpu", dtype="float32")
    layer = 4 * 32 * 32 + 3 * 32 * 48 + 2 * 32
    cached = 2 * 4 * 3 * 10 * 32  # K and V, layers, rows, context, width
    assert bytes_per_step(backbone, 3, 10) == 4 * (4 * layer + 32 + 97 * 32 + cached)


def generation(tokens, near_ties=()):
    return Generation(
        tokens=tokens,
        layers=[],
        routes=[],
        flops={},
        executed=0,
        prompt_flops=0,
        prompt_executed=0,
        acted=False,
        near_ties=list(near_ties),
    )


def test_tokens_are_compared_row_by_row():
    ours = [generation([1, 2, 3]), generation([1, 2, 3], [(1, 1e-5)]), generation([1, 2, 3], [(2, 1e-5)])]
    assert same_tokens(ours, [[1, 2, 3], [1, 9, 3], [1, 9, 3]]) == (1, 1)


def test_texts_are_compared_one_by_one():
    ours, theirs = {"a": "x", "b": "y", "c": "z"}, {"a": "x", "b": "w", "c": "w"}
    assert compare(ours, ours, set()) == "3 of 3 texts equal lm-eval's"
    assert compare(ours, theirs, {"a", "b"}).endswith(
        "1 of 3 texts equal lm-eval's, 1 differ after a near-tie, 1 for no such reason"
    )


# ---- the command line


@pytest.fixture
def ran(monkeypatch):
    asked = []
    monkeypatch.setattr("dlbench.bench.run.execute", asked.append)
    return asked


def test_options_reach_the_benchmark(ran, tmp_path):
    out = tmp_path / "bench.json"
    line = f"bench --quick --out {out} --threads 2 --device cpu --dtype bfloat16 --only wide,decode"
    assert cli.main(line.split()) == 0 and cli.main(["bench"]) == 0
    assert ran == [Options(True, out, 2, "cpu", "bfloat16", "wide,decode"), Options()]
    assert ran[0].parts() == ("decode", "wide") and ran[1].parts() == tuple(PARTS)


BAD = [
    ("--only decod", "unknown part of the benchmark 'decod': did you mean decode?"),
    ("--only decode,swep", "did you mean sweep?"),
    ("--only ,", "--only names nothing: there is decode"),
    ("--threads 0", "0 threads: give at least 1"),
    ("--threads many", "Invalid value for '--threads'"),
    ("--dtype float23", "unknown dtype 'float23': did you mean float32"),
    ("--out nowhere/x.json", "--out nowhere/x.json cannot be written"),
    ("--out .", "--out . is a folder"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[options for options, _ in BAD])
def test_bad_options_are_one_line(ran, capsys, options, message):
    assert cli.main(["bench", *options.split()]) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("dlbench: ") and err.count("\n") == 1 and ran == []


def test_an_absent_device_is_told(capsys):
    assert cli.main(["bench", "--device", "cuda:99"]) == 2
    assert "device 'cuda:99' is not on this machine" in capsys.readouterr().err


def test_an_interrupted_benchmark_says_so(capsys, monkeypatch):
    def interrupted(asked):
        raise KeyboardInterrupt

    monkeypatch.setattr("dlbench.bench.run.execute", interrupted)
    assert cli.main(["bench"]) == 130
    assert capsys.readouterr().err.startswith("dlbench: interrupted")


class Side(Ours):
    """Notes what is run of it."""

    def __call__(self):
        self.texts["run"] = self.texts.get("run", 0) + 1
        return 1.0

    def warm_up(self):
        self.texts["few"] = self.texts.get("few", 0) + 1


@pytest.mark.parametrize(("captures", "ran"), [(0, {"few": 1, "run": 3}), (2, {"run": 5})])
def test_captured_steps_warm_up_with_what_is_timed(captures, ran):
    bench = Workbench(SIZES, "cpu", "float32", 1)
    side = Side(SimpleNamespace(warm_ups=captures), [], 2, bench.watch)
    assert race_of(bench, {"ours": side}, 3).rounds == {"ours": (1.0,) * 3}
    assert side.texts == ran
