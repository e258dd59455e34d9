"""What a fit says beforehand, against what came; its bound in the run; and lines where there is no terminal."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import small_model
import tiny_models
import toy_task

from dlbench.cli import main
from dlbench.fit import FitProbe, Readings
from dlbench.forecast.fits import forecast
from dlbench.forecast.speed import Speed
from dlbench.method import Method
from dlbench.methods.calm import Calm
from dlbench.methods.d_llm import DLlm
from dlbench.methods.hidden_router import HiddenRouter
from dlbench.methods.llm_drop import LlmDrop
from dlbench.methods.mind_skip import MindSkip
from dlbench.methods.sequence_router import SequenceRouter
from dlbench.methods.short_gpt import ShortGpt
from dlbench.methods.sleb import Sleb
from dlbench.models.backbone import wrap
from dlbench.running.planner import Planner
from dlbench.terminal import progress
from dlbench.terminal.progress import Progress

LEARN = [ShortGpt(), LlmDrop(), Sleb(), HiddenRouter(steps=5), DLlm(steps=5), MindSkip(steps=5)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of four layers and nano's tokenizer."""
    return small_model.save(tmp_path_factory.mktemp("models") / "tiny")


def test_the_tokens_that_learning_takes_are_foretold(capsys: pytest.CaptureFixture[str]) -> None:
    """One fit after the other with common readings: what one has read, the next is not told to read."""
    model = tiny_models.build("llama", depth=5)
    backbone, documents, readings = wrap(model, toy_task.Characters()), toy_task.documents(model, 10), Readings()
    for method in LEARN:
        probe = FitProbe(backbone, toy_task.Scored(), documents, documents, budget=0.75, readings=readings)
        rehearsed = forecast(probe, Speed(probe), method, None, learns=True)
        assert rehearsed is not None
        said = rehearsed[0]
        assert said.flops > 0 < said.seconds
        type(method).from_params(method.params()).fit(probe)
        tolerance = 0.25 if "steps" in method.params() else 0  # training draws its texts
        assert said.tokens == pytest.approx(probe.tokens, rel=tolerance), method


@pytest.mark.parametrize("method", [SequenceRouter(), Calm(measure="classifier"), Calm(calibrate="textual")], ids=str)
def test_whatever_a_method_asks_for_is_rehearsed(method: Method) -> None:
    model = tiny_models.build("llama", depth=5)
    documents = toy_task.documents(model, 30)
    probe = FitProbe(wrap(model, toy_task.Characters()), toy_task.Scored(), documents, documents, budget=0.5)
    before = probe.tokens
    rehearsed = forecast(probe, Speed(probe), method, 0.5, learns=True)
    assert rehearsed is not None and rehearsed[0].tokens > sum(len(d.prompt) for d in documents)
    assert probe.tokens == before and probe.readings.trace is None and not probe.readings.confidences


def fits_in(out: Path) -> dict[str, dict[str, object]]:
    return {file.parent.name: json.loads(file.read_text()) for file in (out / "fits").glob("*/fit.json")}


def test_a_bound_counts_where_it_leaves_documents_out(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", "short_gpt", "--model", str(tiny), "--task", "nano_summary", "--processes", "1"]
    for name, bound in (("own", []), ("all", ["--fit-tokens", "all"]), ("few", ["--fit-tokens", "900"])):
        assert main([*line, "--out", str(tmp_path / name), *bound]) == 0
    own, every, few = (fits_in(tmp_path / name) for name in ("own", "all", "few"))
    assert own.keys() == every.keys() != few.keys()
    (content,) = few.values()
    assert 1 < int(str(content["learnt_from"])) < 20 and int(str(content["tokens"])) <= 900
    said = capsys.readouterr().err
    assert re.search(
        rf"fit: short_gpt on nano_summary: {content['learnt_from']} documents to learn from and \d+ to tune on; "
        rf"{content['tokens']} tokens, [\d.]+ TFLOPs, about \d+ seconds",
        said,
    )
    assert re.search(r"fit: short_gpt on nano_summary: took \d+ seconds, \d+ seconds foretold", said)
    assert main([*line, "--out", str(tmp_path / "none"), "--fit-tokens", "0"]) == 2
    assert "0 fit tokens: give at least 1, or `all`" in capsys.readouterr().err


def test_nothing_to_fit_is_said_before_a_model_is_loaded(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Planner, "load", lambda self: pytest.fail("the model is loaded"))
    line = ["fit", "static_skip", "--model", str(tiny), "--task", "nano_summary", "--out", str(tmp_path)]
    assert main([*line, "--processes", "1"]) == 2
    assert "static_skip: nothing to fit" in capsys.readouterr().err


def test_where_there_is_no_terminal_lines_tell_how_far_a_stage_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.05)
    with Progress(shown=True) as shown, shown.stage("a on b", seconds=125) as say:
        say(3, 40)
        time.sleep(0.3)
    with Progress(shown=False) as silent, silent.stage("c on d"):
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert "fit: a on b: 0:00 of about 2:05, step 3 of 40" in lines and not any("c on d" in line for line in lines)
