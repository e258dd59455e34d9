"""Whole trainings on a tiny model: what is written, that it is resumed, and that the result is an ordinary backbone."""

from __future__ import annotations

import json
import os
import runpy
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apart
import pytest
import torch
from safetensors.torch import load_file

from dlbench.cli import main
from dlbench.models.checkpoint.hashes import fingerprint
from dlbench.models.loading import load
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record
from dlbench.system.folder_lock import FolderLock
from dlbench.train import data, run
from dlbench.train.card import read_card
from dlbench.train.loop import Trainer

CHECKOUT = Path(__file__).parents[2]
FILES = {
    ".lock",
    "README.md",
    "config.json",
    "dlbench.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "train.json",
    "train_log.jsonl",
}


def command(tiny: Path, out: Path, *more: str, recipe: str = "sorted") -> list[str]:
    return ["train", recipe, "--model", str(tiny), "--task", "nano_summary", "--task", "nano_math", "--out", str(out),
            "--documents", "60", "--batch-tokens", "400", "--micro-tokens", "300", "--score", "1",
            "--dtype", "float32", *more]  # fmt: skip  # what `auto` takes depends on the machine


@pytest.fixture(scope="module")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "tiny-sorted"
    assert main(command(tiny, out, "--exits", "2,3")) == 0
    return out


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


def test_the_result_is_an_ordinary_backbone_with_a_card(finished: Path, tiny: Path) -> None:
    assert {p.name for p in finished.iterdir()} == FILES
    card, base, trained = read_card(finished), load(str(tiny)), load(str(finished))
    assert (card.recipe, card.options, card.depth, card.family) == ("sorted", {"exits": [2, 3, 4]}, 4, "llama")
    assert card.base_sha256 == card.parent_sha256 == base.sha256 == trained.base_sha256
    assert card.sha256 == trained.sha256 == fingerprint(finished) != base.sha256
    assert card.parent == "tiny" and trained.name == "tiny-sorted"
    assert [(s.task, s.version, s.split, s.documents, s.epochs) for s in card.sources] == [
        ("nano_summary", "1", "train", 30, 1),
        ("nano_math", "1", "train", 30, 1),
    ]
    assert card.tokens == sum(s.tokens for s in card.sources) and card.targets == sum(s.targets for s in card.sources)
    assert (card.seed, card.processes, card.device, card.prompt) == (0, 1, "cpu", "full")
    assert {"lr": 2e-3, "batch_tokens": 400, "weight_decay": 0.0, "dtype": "float32"}.items() <= card.settings.items()
    assert {"dlbench", "torch", "transformers", "accelerate"} <= set(card.versions)
    assert [(m.name, m.task, m.documents) for m in card.quality] == [
        (name, task, 1) for name in ("exit 2", "exit 3", "full") for task in ("nano_summary", "nano_math")
    ]
    assert [m.layers for m in card.quality[::2]] == [(0, 1), (0, 1, 2), (0, 1, 2, 3)]
    assert {t.dtype for t in weights(finished).values()} == {torch.bfloat16}  # stored like the base
    assert any(not torch.equal(a, b) for a, b in zip(base.model.parameters(), trained.model.parameters(), strict=True))


def test_the_human_card_says_the_same(finished: Path) -> None:
    text, card = (finished / "README.md").read_text(), read_card(finished)
    assert text.startswith("# tiny-sorted\n") and f"{card.tokens:,} tokens" in text and card.base_sha256 in text
    assert "| layers | nano_summary (rougeL) | nano_math (exact) |" in text
    assert f"| full | {card.cell('full', 'nano_summary')} | {card.cell('full', 'nano_math')} |" in text
    assert "--model tiny-sorted" in text and str(finished.parent) not in text


def test_a_finished_training_is_shown_and_not_done_again(
    finished: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "load", None)
    assert main(command(tiny, finished, "--exits", "2,3", "--save-minutes", "1")) == 0
    said = capsys.readouterr().out
    assert "trained already" in said and "exit 2" in said and "nano_summary" in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--exits", "2,3", "--lr", "0.1"), "its lr was null, not 0.1; give another folder"),
        (("--exits", "1,3"), "its options was"),
        ((), "its options was"),
    ],
)
def test_a_folder_holds_one_training(finished: Path, tiny: Path, more, message, capsys) -> None:
    assert main(command(tiny, finished, *more)) == 2
    assert f"{finished} holds another training: {message}" in capsys.readouterr().err


def test_a_chain_of_trainings_keeps_the_first_base(finished: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    assert main(command(finished, out, "--score", "0", recipe="layerskip")) == 0
    card = read_card(out)
    assert (card.base_sha256, card.parent_sha256) == (fingerprint(tiny), fingerprint(finished))
    assert load(str(out)).base_sha256 == fingerprint(tiny)
    assert (card.options["p_max"], card.options["curriculum"], card.quality) == (0.1, "rotational", ())


def test_its_rows_land_in_the_track_of_the_base(
    finished: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ci/exits.py` runs static_exit on both, and prints them side by side."""
    runpy.run_path(str(CHECKOUT / "ci" / "exits.py"))["main"](str(tiny), finished, tmp_path / "run", 3)
    found = list(read_lines(tmp_path / "run" / "records.jsonl", Record))
    assert {r.track.split()[0] for r in found} == {f"base={fingerprint(tiny)[:12]}"}
    assert len({r.track for r in found}) == len({r.task.name for r in found}) == 2
    rows = {(r.backbone.sha256, r.method.name, r.run.budget): r for r in found if r.task.name == "nano_math"}
    methods = [("full", None), ("static_exit", 0.5), ("static_exit", 0.75)]
    assert set(rows) == {(fingerprint(f), *m) for f in (tiny, finished) for m in methods}
    trained = rows[fingerprint(finished), "static_exit", 0.5]
    assert trained.backbone.base_sha256 == fingerprint(tiny) and trained.compute is not None
    assert trained.compute.layer_share == pytest.approx(0.5)
    plain = rows[fingerprint(tiny), "static_exit", 0.5]
    assert trained.quality is not None and plain.quality is not None
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert lines[0] == "| exit after | nano_summary (rougeL) | nano_math (exact) |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["2 layers", "3 layers", "4 (full)"]
    assert lines[2].endswith(f"| {plain.quality.mean:.3f} → {trained.quality.mean:.3f} |")


def test_skip_tuned_measures_the_set_that_it_trains(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ("--set", "static_skip.only=[0,3]", "--prompt", "routed")
    assert main(command(tiny, out, *more, recipe="skip-tuned")) == 0
    card = read_card(out)
    assert card.options == {"method": "static_skip", "params": {"only": [0, 3]}, "prompt": "routed"}
    assert card.prompt == "routed" and [m.layers for m in card.quality[::2]] == [(0, 3), (0, 1, 2, 3)]
    before, after = weights(tiny), weights(out)
    same = {name.split(".")[2] for name in before if ".layers." in name and torch.equal(before[name], after[name])}
    assert same >= {"1", "2"}


# ---- resuming


def test_a_killed_training_ends_with_the_same_weights(finished: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny-sorted"
    arguments = command(tiny, out, "--exits", "2,3", "--save-minutes", "0", "--score", "0")
    checkpoint = out / run.WORK / "checkpoint.pt"
    with apart.start(arguments) as process:
        limit = time.monotonic() + 120
        while not checkpoint.is_file():
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (out / "dlbench.json").exists()
    done = torch.load(checkpoint, weights_only=True)["totals"]["step"]
    assert 1 <= done < read_card(finished).steps
    assert main(arguments) == 0
    assert (out / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    first, second = read_card(finished), read_card(out)
    assert (first.tokens, first.steps, first.sha256) == (second.tokens, second.steps, second.sha256)


def test_what_ends_after_the_last_step_is_finished_without_another(
    finished: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tiny-sorted"
    arguments = command(tiny, out, "--exits", "2,3", "--score", "0")

    def full_disk(*_: Any) -> None:
        raise OSError("no space left on device")

    replace = os.replace

    def not_the_weights(source: Any, target: Any) -> None:
        full_disk() if Path(source).name == "model.safetensors" else replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", not_the_weights)
        assert main(arguments) == 1
    assert (out / "dlbench.json").exists() and not (out / "model.safetensors").exists()  # no weights without a card
    monkeypatch.setattr(Trainer, "_step", full_disk)
    assert main(arguments) == 0
    assert (out / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    assert {p.name for p in out.iterdir()} == FILES


def test_other_weights_under_the_same_name_are_another_training(
    tiny: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    loaded = load(str(tiny))
    loaded.model.save_pretrained(model)
    loaded.tokenizer.save_pretrained(model)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", lambda self, done: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(command(model, out, "--score", "0")) == 130
    assert "continues from the last checkpoint" in capsys.readouterr().err
    with torch.no_grad():
        next(loaded.model.parameters()).add_(1.0)
    loaded.model.save_pretrained(model)
    assert main(command(model, out, "--score", "0")) == 2
    assert "holds another training: its parent was" in capsys.readouterr().err


@pytest.mark.parametrize("quick", [True, False])
def test_what_is_multiplied_in_follows_the_processor(quick: bool, monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: quick)
    training = object.__new__(run.Training)
    training.device = torch.device("cpu")
    for dtype, expected in (
        ("auto", torch.bfloat16 if quick else None),
        ("bfloat16", torch.bfloat16),
        ("float32", None),
    ):
        training.spec = SimpleNamespace(dtype=dtype)
        assert training._autocast() is expected


@pytest.mark.slow
def test_two_processes_learn_the_same(finished: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(command(tiny, out, "--exits", "2,3", "--processes", "2", "--score", "0")) == 0
    card, one = read_card(out), read_card(finished)
    assert card.processes == 2 and (card.steps, card.tokens, card.sources) == (one.steps, one.tokens, one.sources)
    ours, theirs = weights(out), weights(finished)
    assert all(torch.allclose(ours[n].float(), theirs[n].float(), rtol=0.02, atol=2e-3) for n in theirs)
    assert [json.loads(line)["step"] for line in (out / "train_log.jsonl").read_text().splitlines()][-1] == card.steps


# ---- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sort"], "unknown recipe 'sort': did you mean sorted?"),
        (["sorted", "--layer-dropout", "0.1"], "--layer-dropout is an option of recipe layerskip, not of sorted"),
        (["layerskip", "--exits", "2"], "--exits is an option of recipe sorted, not of layerskip"),
        (["sorted", "--exits", "two"], "--exits 'two': give numbers of layers, such as 4,8,12,16"),
        (["sorted", "--exits", "9"], "exit 9: the model has 4 layers; give numbers from 1 to 4"),
        (["layerskip", "--curriculum", "rotate"], "unknown curriculum 'rotate': did you mean rotational?"),
        (["layerskip", "--layer-dropout", "1"], "layer dropout 1.0: give a probability"),
        (["skip-tuned", "--method", "static_ship"], "unknown method 'static_ship': did you mean static_skip"),
        (["skip-tuned", "--method", "random_skip"], "method 'random_skip' has no fixed set of layers"),
        (["skip-tuned", "--set", "static_exit.share=0.5"], "unknown method 'static_exit' in a setting"),
        (["skip-tuned", "--set", "static_skip.share=2"], "method 'static_skip': share must lie in (0, 1], not 2"),
        (["skip-tuned", "--prompt", "ful"], "unknown prompt policy 'ful': did you mean full?"),
        (["sorted", "--dtype", "int8"], "int8 weights cannot be trained: train the plain model, then run it with"),
        (["sorted", "--dtype", "float16"], "unknown dtype 'float16'"),
        (["sorted", "--lr", "0"], "--lr 0.0: give a learning rate above 0"),
        (["sorted", "--batch-tokens", "0"], "--batch-tokens 0: give at least 1"),
        (["sorted", "--save-minutes", "-1"], "--save-minutes -1.0: give 0 or more"),
        (["sorted", "--warmup", "1"], "--warmup 1.0: give a share of the steps"),
        (["sorted", "--seed", "-1"], "seed -1: give a number from 0"),
        (["sorted", "--device", "gpu"], "unknown device 'gpu'"),
        (["sorted", "--model", "./nowhere"], "no model folder ./nowhere"),
        (["sorted", "--task", "nano_maths"], "unknown task 'nano_maths': did you mean nano_math"),
    ],
)
def test_a_slip_is_one_clear_line_and_leaves_nothing(tiny: Path, tmp_path: Path, capsys, arguments, message) -> None:
    out = tmp_path / "out"
    recipe, *options = arguments
    model = [] if "--model" in options else ["--model", str(tiny)]
    assert main(["train", recipe, "--out", str(out), *model, *options]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("dlbench: ") and message in lines[0]
    assert not out.exists()


def test_a_folder_that_is_not_ours_is_left_alone(tiny: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    assert main(command(tiny, tmp_path)) == 2
    assert "holds files but no train.json, so it is not a dlbench training" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_trainings_do_not_write_to_one_folder(tiny: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """The second has passed the checks before the first writes anything."""
    lock, gather = FolderLock(tmp_path), data.gather
    monkeypatch.setattr(FolderLock.take, "__defaults__", (0.0,))
    monkeypatch.setattr(data, "gather", lambda *given: lock.take() and gather(*given))
    monkeypatch.setattr(run.Training, "_train", None)
    try:
        assert main(command(tiny, tmp_path)) == 2
    finally:
        lock.free()
    assert f"another command writes there (process {os.getpid()} on " in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_a_quantised_model_is_refused(tiny: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    def quantised(*given: Any, **more: Any) -> Any:
        backbone = load(*given, **more)
        backbone.model.config.quantization_config = {"quant_method": "gptq"}
        return backbone

    monkeypatch.setattr(run, "load", quantised)
    assert main(command(tiny, tmp_path / "out")) == 2
    assert "model 'tiny' is quantised, so it cannot be trained: give the plain model" in capsys.readouterr().err


def test_a_task_without_a_fit_split_is_refused(tiny: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "data.jsonl").write_text('{"text": "a", "answer": "b"}\n')
    task = tmp_path / "mine.yaml"
    task.write_text(
        "task: mine\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'data.jsonl'}}}}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: '{{text}}'\ndoc_to_target: '{{answer}}'\n"
        "generation_kwargs: {until: [], max_gen_toks: 4}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    assert main(["train", "sorted", "--model", str(tiny), "--task", str(task), "--out", str(tmp_path / "out")]) == 2
    assert "task 'mine' has no split to train on: give its YAML a training_split" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
