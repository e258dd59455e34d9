"""Whole runs on a tiny random model: what is written, that it is complete, and that it can be resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apart
import pytest
import small_model
import torch

from dlbench.cli import main
from dlbench.evaluation.generation import QualityRun
from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.models.families import FAMILIES
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import CandidateScore, Record, Sample, Timing
from dlbench.running.config import RunSpec
from dlbench.running.job import Job
from dlbench.running.method_fitter import MethodFitter
from dlbench.running.planner import Planner
from dlbench.system import folder_lock, stopping
from dlbench.system import processes as launch
from dlbench.terminal.progress import Progress

METHODS = ["full", "static_skip", "random_skip", "oracle"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of four layers and nano's tokenizer."""
    return small_model.save(tmp_path_factory.mktemp("models") / "tiny")


def command(tiny: Path, out: Path, *more: str) -> list[str]:
    chosen = [word for m in METHODS for word in ("--method", m)]
    return ["run", "--model", str(tiny), "--task", "nano_summary", "--limit", "8", "--batch-size", "3",
            "--budget", "0.5", "--out", str(out), *chosen, *more]  # fmt: skip


def records(out: Path) -> list[dict[str, Any]]:
    """The records of a run without what depends on how the documents were batched."""
    found = []
    for record in read_lines(out / "records.jsonl", Record):
        plain = record.model_dump()
        plain["compute"].pop("executed_flops")
        found.append(plain)
    return found


@pytest.fixture(scope="module")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    assert main(command(tiny, out)) == 0
    return out


def test_a_run_leaves_complete_files(finished: Path) -> None:
    found = list(read_lines(finished / "records.jsonl", Record))
    names = [r.method.name for r in found]
    assert sorted(set(names)) == ["full", "oracle", "oracle@full", "oracle_cross", "random_skip", "static_skip"]
    assert len({r.track for r in found}) == 1
    for record in found:
        samples = list(read_lines(finished / "samples" / f"{record.key}.jsonl", Sample))
        assert len(samples) == record.task.n == 8
        assert record.quality is not None and record.compute is not None
        if record.method.name != "oracle_cross":
            assert record.quality.mean == pytest.approx(sum(s.score for s in samples) / 8)
        assert all(len(s.layers) == s.tokens.generated - 1 for s in samples)
        assert record.compute.flops.total == sum(s.flops.total for s in samples)
    (oracle,) = (r for r in found if r.method.name == "oracle")
    table = list(read_lines(finished / "samples" / f"{oracle.key}.candidates.jsonl", CandidateScore))
    assert len(table) == 8 * len({c.candidate for c in table})
    times = list(read_lines(finished / "timing.jsonl", Timing))
    assert {(t.key, t.batch_size) for t in times} == {(r.key, b) for r in found if r.method.deployable for b in (1, 16)}
    assert all(t.kernels in ("fused", "stock") for t in times)
    assert {r.env["kernels"].partition(":")[0] for r in found} == {t.kernels for t in times}
    assert (finished / "site" / "index.html").is_file()


def test_a_second_run_decodes_nothing(finished: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (finished / "records.jsonl").read_bytes()

    def refuse(*_: object) -> None:
        raise AssertionError("decoded what was there")

    monkeypatch.setattr(QualityRun, "_decode_batch", refuse)
    assert main(command(tiny, finished, "--no-timing")) == 0
    assert (finished / "records.jsonl").read_bytes() == before


def test_a_smaller_run_does_not_poison_a_larger_one(finished: Path, tiny: Path, tmp_path: Path) -> None:
    assert main([*command(tiny, tmp_path / "out", "--no-timing"), "--limit", "2"]) == 0
    assert main(command(tiny, tmp_path / "out", "--no-timing")) == 0
    assert records(tmp_path / "out") == records(finished)


def test_two_processes_give_the_records_of_one(finished: Path, tiny: Path, tmp_path: Path) -> None:
    assert main(command(tiny, tmp_path / "out", "--no-timing", "--processes", "2")) == 0
    assert list(map(without_padding, records(tmp_path / "out"))) == list(map(without_padding, records(finished)))


def without_padding(record: dict[str, Any]) -> dict[str, Any]:
    """All but what depends on which documents were decoded side by side."""
    return {**record, "compute": {**record["compute"], "executed_flops": None}}


def test_a_killed_run_goes_on_with_another_number_of_processes(finished: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with apart.start(command(tiny, out, "--no-timing"), start_new_session=True) as process:
        limit = time.monotonic() + 120
        while not list(out.glob("samples/*.part")):
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (out / "records.jsonl").exists()
    part = next(out.glob("samples/*.part"))
    with part.open("a") as file:
        file.write('{"id": "torn')
    assert main(command(tiny, out, "--no-timing", "--processes", "2")) == 0
    assert records(out) == records(finished)


def test_a_run_that_its_time_limit_stops_goes_on(
    finished: Path,
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, decoded, decode = tmp_path / "out", [0], QualityRun._decode_batch

    def counting(run: QualityRun, *given: Any) -> None:
        decode(run, *given)
        decoded[0] += run.store.out == out

    monkeypatch.setattr(QualityRun, "_decode_batch", counting)
    monkeypatch.setattr("dlbench.system.stopping.left", lambda limit: limit and limit - decoded[0])
    line = command(tiny, out, "--no-timing", "--task", "nano_math")
    assert main([*line, "--time-limit", "1"]) == 143
    said = capsys.readouterr().err
    assert said.endswith("dlbench: stopped by --time-limit; the same command continues where it stopped\n")
    assert decoded == [1] and not (out / "records.jsonl").exists()
    assert main(line) == 0
    assert decoded == [2]  # one wave of each task, none of them twice
    assert [r for r in records(out) if r["task"]["name"] == "nano_summary"] == records(finished)
    events = [json.loads(text) for text in (out / "log.jsonl").read_text().splitlines()]
    assert [one["event"] for one in events if one["event"] in ("run", "ended", "finished")] == [
        *("run", "ended", "run", "finished"),
    ]
    begun = next(one for one in events if one["event"] == "run")
    assert begun["torch"] == torch.__version__ and begun["spec"]["limit"] == 8
    assert not list(out.rglob("*.scratch")) and json.loads((out / "state.json").read_text())["work"]


def test_a_folder_that_another_run_writes_to_is_refused(
    finished: Path, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = folder_lock.FolderLock(finished)
    lock.take()
    monkeypatch.setattr(folder_lock.check_free, "__defaults__", (0.0,))
    try:
        assert main(command(tiny, finished, "--no-timing")) == 2
    finally:
        lock.free()
    assert f"another command writes there (process {os.getpid()} on " in capsys.readouterr().err


def test_stock_kernels_give_the_same_samples(finished: Path, tiny: Path, tmp_path: Path) -> None:
    assert main([*command(tiny, tmp_path / "out"), "--kernels", "stock"]) == 0
    stock, auto = (list(read_lines(out / "records.jsonl", Record)) for out in (tmp_path / "out", finished))
    assert [r.key for r in stock] == [r.key for r in auto]  # the kernels are no part of what is measured
    assert {r.env["kernels"] for r in stock} == {"stock"}
    assert {t.kernels for t in read_lines(tmp_path / "out" / "timing.jsonl", Timing)} == {"stock"}
    for record in stock:
        if record.method.name == "full":
            name = f"{record.key}.jsonl"
            one, two = (list(read_lines(out / "samples" / name, Sample)) for out in (tmp_path / "out", finished))
            same = [a.output == b.output or a.near_ties or b.near_ties for a, b in zip(one, two, strict=True)]
            assert all(same)


def test_a_plugin_file_runs_and_its_failure_is_one_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "every_second.py"
    plugin.write_text(
        "from dataclasses import dataclass\n"
        "from dlbench.method import Action, Method, View\n\n\n"
        "@dataclass\n"
        "class EverySecond(Method):\n"
        '    """Run every second layer."""\n\n'
        "    warmup: int = 1\n\n"
        "    def route(self, view: View) -> Action:\n"
        "        if (view.step >= self.warmup + 50).any():\n"
        "            raise RuntimeError('boom')\n"
        "        return Action.RUN if view.layer % 2 == 0 else view.step < self.warmup\n"
    )
    base = ["run", "--model", str(tiny), "--task", "nano_summary", "--limit", "2", "--no-timing"]
    assert main([*base, "--method", str(plugin), "--out", str(tmp_path / "a")]) == 0
    found = {r["method"]["name"]: r for r in records(tmp_path / "a")}
    assert found["every_second"]["method"]["params"] == {"warmup": 1}
    assert 0.5 < found["every_second"]["compute"]["layer_share"] < 0.7
    capsys.readouterr()
    again = [*base, "--method", str(plugin), "--set", "every_second.warmup=-60", "--out", str(tmp_path / "b")]
    assert main(again) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "EverySecond failed" in said and "boom" in said and "every_second.py, line" in said


FAILING = """
from dataclasses import dataclass
from typing import ClassVar
from dlbench.method import Knob, Method

@dataclass
class Failing(Method):
    \"\"\"Fail while decoding, or in the fit.\"\"\"

    fitted: ClassVar[bool] = True
    knob: ClassVar[Knob | None] = Knob("share", 0.0, 1.0)
    share: float = 1.0

    def fit(self, probe):
        FIT

    def route(self, view):
        if int(view.step.max()) > 2 and self.share == 1.0:
            return self.missing
        return view.layer < self.share * view.depth
"""


def test_a_method_that_fails_does_not_end_the_run(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its rows are left out with the reason, the exit code says so, and the other rows are there."""
    base = ["run", "--model", str(tiny), "--task", "nano_summary", "--limit", "2", "--no-timing", "--processes", "1"]
    for name, text in (("in_fit", "raise KeyError('width')"), ("in_route", "self.share = 1.0")):
        (tmp_path / f"{name}.py").write_text(FAILING.replace("FIT", text))
        base += ["--method", str(tmp_path / f"{name}.py")]
    base += ["--set", "in_route.share=1.0", "--method", "static_skip", "--budget", "0.5"]
    assert main([*base, "--out", str(tmp_path / "out")]) == 3
    assert {r["method"]["name"] for r in records(tmp_path / "out")} == {"full", "static_skip"}
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        "rows left out, since their methods failed: 2: in_fit on nano_summary: method 'in_fit': KeyError: 'width'"
        in said
    )
    assert f"{tmp_path}/in_fit.py, line 15" in said
    assert "in_route on nano_summary: method Failing failed before layer 0 at step 3: AttributeError" in said
    assert f"{tmp_path}/in_route.py, line 19" in said and "fault of dlbench" not in said


DROPS = """
from dataclasses import dataclass
from typing import ClassVar
from torch import Tensor
from dlbench.method import Method, View

@dataclass
class Drops(Method):
    \"\"\"Every second layer, the even and the odd ones in turn.\"\"\"

    kv: ClassVar[tuple[str, ...]] = ("project", "evict")

    def route(self, view: View) -> Tensor:
        return (view.layer + view.step) % 2 == 1
"""


def test_the_kv_policy_reaches_decoding_times_and_records(tiny: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "drops.py"
    plugin.write_text(DROPS)
    found = {}
    for policy in ("own", "project", "evict"):
        line = ["run", "--model", str(tiny), "--task", "nano_summary", "--limit", "4", "--method", str(plugin)]
        line += ["--method", "static_skip", "--budget", "0.5", "--out", str(tmp_path / policy)]
        assert main([*line, *(["--kv", policy] if policy != "own" else [])]) == 0
        found[policy] = {r.method.name: r for r in read_lines(tmp_path / policy / "records.jsonl", Record)}
        assert {t.key for t in read_lines(tmp_path / policy / "timing.jsonl", Timing)} == {
            r.key for r in found[policy].values()
        }
    project, evict = found["project"], found["evict"]
    assert {n: r.key for n, r in found["own"].items()} == {n: r.key for n, r in project.items()}
    assert (project["drops"].run.kv, evict["drops"].run.kv) == ("project", "evict")
    assert project["drops"].key != evict["drops"].key
    assert project["drops"].compute and project["drops"].compute.flops.kv > 0
    assert evict["drops"].compute and evict["drops"].compute.flops.kv == 0
    for name in ("full", "static_skip"):  # no policy makes a difference to them: the same row
        assert evict[name].run.kv == "project" and evict[name].key == project[name].key
    labels = [row.label for row in build_tracks([*project.values(), evict["drops"]])[0].rows]
    assert labels == ["full", "drops · kv=evict", "drops · kv=project", "static_skip"]


def test_in_a_run_of_all_methods_those_without_the_policy_are_left_out(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = RunSpec((str(tiny),), ("nano_summary",), ("hidden_router", "static_skip"), kv="recompute", limit=2)
    planner = Planner(spec, "cpu", Progress(shown=True), 1, str)
    (job,) = jobs = planner.load()
    planner.fit(planner.fitters(jobs))
    assert {s.name for s in job.settings} == {"full", "static_skip"}
    assert "hidden_router does not support kv policy 'recompute': it has" in capsys.readouterr().err


def test_int8_stands_beside_the_model_that_it_was_made_of(tiny: Path, tmp_path: Path) -> None:
    """What is kept is against full depth before quantising; early exit on int8 is a row of the same board."""
    line = ["run", "--model", str(tiny), "--task", "nano_summary", "--limit", "6", "--dtype", "int8"]
    line += [
        "--method",
        "static_exit",
        "--method",
        "calm",
        "--budget",
        "0.5",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(line) == 0
    found = list(read_lines(tmp_path / "out" / "records.jsonl", Record))
    times = list(read_lines(tmp_path / "out" / "timing.jsonl", Timing))
    (track,) = build_tracks(found, times)
    rows = {row.label: row for row in track.rows}
    assert list(rows) == ["full", "calm · int8", "full · int8", "static_exit · int8"]
    full = rows["full"].record
    assert full.backbone.dtype == "float32" and full.quality
    for label, row in rows.items():
        record = row.record
        assert row.timings.keys() == {1, 16}
        assert record.quality and record.quality.full_mean == full.quality.mean
        assert record.backbone.base_sha256 == full.backbone.sha256
        if label != "full":
            assert record.backbone.dtype == "int8" and record.backbone.sha256 != full.backbone.sha256
            assert record.method.kind == "method"
    assert rows["full · int8"].record.compute and rows["full · int8"].record.compute.flop_share_decode == 1.0


def test_int8_of_a_trained_model_whose_base_does_not_run_stands_beside_what_it_was_made_of(
    tiny: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny, tmp_path / "trained"))
    (model / "dlbench.json").write_text(json.dumps({"base_sha256": "11" * 32}))
    out = tmp_path / "out"
    line = ["run", "--model", str(model), "--task", "nano_summary", "--limit", "6", "--dtype", "int8", "--no-timing"]
    assert main([*line, "--method", "calm", "--budget", "0.5", "--out", str(out)]) == 0
    (track,) = build_tracks(list(read_lines(out / "records.jsonl", Record)), [])
    rows = {row.label: row.record for row in track.rows}
    assert list(rows) == ["full", "calm · int8", "full · int8"]
    plain = rows["full"].backbone
    assert plain.dtype == "float32" and {r.backbone.base_sha256 for r in rows.values()} == {plain.sha256}
    for record in rows.values():
        assert record.quality and record.quality.full_mean == rows["full"].quality.mean  # type: ignore[union-attr]
    assert any("before it was quantised" in note for note in rows["calm · int8"].notes)
    (fit,) = (out / "fits").glob("*/fit.json")
    assert json.loads(fit.read_text())["method"] == "calm"


def test_damaged_weights_are_one_line(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    assert main([*command(broken, tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip()
    said = said.splitlines()[-1]  # the first line says what the limit leaves out
    assert "broken" in said and "again" in said
    assert not (tmp_path / "out").exists()


def test_an_unsupported_model_is_one_line_with_what_is_supported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "snail").mkdir()
    (tmp_path / "snail" / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    assert main(command(tmp_path / "snail", tmp_path / "out")) == 2
    said = capsys.readouterr().err.strip()
    said = said.splitlines()[-1]
    assert "of type 'mamba'" in said and "dlbench/models/families.py" in said
    assert "it has no list of 32 layers that all have attention" in said
    assert all(family in said for family in FAMILIES)
    assert not (tmp_path / "out").exists()


def test_cut_prompts_are_told_counted_and_shown(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = tmp_path / "short"
    shutil.copytree(tiny, short)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 136}))
    line = ["run", "--model", str(short), "--task", "nano_summary", "--limit", "6", "--method", "full"]
    assert main([*line, "--no-timing", "--out", str(tmp_path / "out")]) == 0
    (record,) = read_lines(tmp_path / "out" / "records.jsonl", Record)
    cut = sum(s.truncated for s in read_lines(tmp_path / "out" / "samples" / f"{record.key}.jsonl", Sample))
    assert 0 < cut <= 6 and record.task.truncated == cut
    said = f"{cut} of 6 prompts were cut to fit the context"
    assert record.notes == (said,)
    out, err = capsys.readouterr()
    assert f"! nano_summary on short: {said}" in out and f"{cut} of 6 prompts do not fit the context of 136" in err
    assert f"nano_summary on short: {said}" in (tmp_path / "out" / "site" / "index.html").read_text()


def test_run_json_says_what_was_asked(finished: Path) -> None:
    facts = json.loads((finished / "run.json").read_text())
    assert facts["spec"]["limit"] == 8 and facts["spec"]["methods"] == METHODS


def test_processes_share_the_fits_and_make_none_twice(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, str]] = []
    fit = MethodFitter._fit

    def noted(self: MethodFitter, *arguments: Any) -> None:
        made.append((threading.current_thread().name, arguments[-1].name))
        fit(self, *arguments)

    monkeypatch.setattr(MethodFitter, "_fit", noted)
    spec = RunSpec(
        models=(str(tiny),),
        tasks=("nano_summary",),
        methods=("full", "hidden_router", "mue", "static_skip"),
        budgets=(0.5, 0.75),
        settings={"hidden_router": {"steps": 1}},
        limit=1,
        out=tmp_path,
    )
    barrier = threading.Barrier(2)

    def meet(_: str) -> str:
        barrier.wait(60)
        return "word"

    def settled(planner: Planner, jobs: list[Job]) -> list[str]:
        planner.fit(planner.fitters(jobs))
        return [s.key for s in jobs[0].settings]

    planners = [Planner(spec, "cpu", Progress(shown=False), 2, meet) for _ in range(2)]
    loaded = [planner.load() for planner in planners]  # one by one: transformers sets what holds for all threads
    with ThreadPoolExecutor(2, "process") as pool:
        mine, others = pool.map(settled, planners, loaded)
    assert mine == others and len(mine) == 1 + 6 + 2
    keys = [key for _, key in made]
    assert len(keys) == len(set(keys)) == 6  # the router and its constant, mue: at two budgets
    assert len({name for name, _ in made}) == 2
    assert not list((tmp_path / "fits").glob(".*"))


@pytest.mark.slow
def test_a_run_that_fits_again_goes_on_where_it_was_stopped_whatever_the_clock_says(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    fit, several = MethodFitter._fit, [1, 9, 9]

    def counted(self: MethodFitter, *arguments: Any) -> None:
        if not several[0]:
            raise stopping.Stopped(stopping.OVER)
        several[0] -= 1
        made.append(arguments[-1].name)
        fit(self, *arguments)

    monkeypatch.setattr(MethodFitter, "_fit", counted)
    line = ["run", "--model", str(tiny), "--task", "nano_summary", "--limit", "1", "--method", "mue", "--budget",
            "0.5,0.75", "--fit-tokens", "500", "--refit", "--no-timing", "--out", str(tmp_path)]  # fmt: skip
    assert main(line) == 143 and len(made) == 1
    os.utime(tmp_path / "fits" / made[0] / "fit.json", (0, 0))
    assert several.pop(0) == 0 and main(line) == 0
    assert len(made) == len(set(made)) == 2 and not (tmp_path / "refitted").exists()
    assert several.pop(0) == 8 and main(line) == 0
    assert sorted(made[:2]) == sorted(made[2:])  # that run was finished: all are made again
    assert not list((tmp_path / "fits").glob(".*"))


@pytest.mark.parametrize(
    ("device", "megabytes", "documents", "processes"),
    [("cpu", 10, 200, 4), ("cpu", 10, None, 4), ("cpu", 10, 8, 1), ("cpu", 200, 200, 1), ("cuda:0", 10, 200, 1)],
)
def test_small_models_on_a_cpu_get_a_process_per_core(
    device: str, megabytes: int, documents: int | None, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "cores", lambda: 4)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(megabytes * 2**20)
    assert launch.suitable([tmp_path], device, documents) == processes
    assert launch.suitable([tmp_path, tmp_path / "elsewhere"], device, documents) == 1


CLOSED = """
from dataclasses import dataclass, replace
from dlbench.method import Static

@dataclass
class Keep(Static):
    share: float = 1.0

    def at(self, budget, depth):
        return {at}

    def layers(self, depth):
        return frozenset(range(round(self.share * depth)))
"""


def test_a_closed_form_needs_no_knob(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keep.py").write_text(CLOSED.format(at="replace(self, share=budget)"))
    line = ["run", "--model", str(tiny), "--task", "nano_summary", "--limit", "4", "--no-timing"]
    line += ["--method", str(tmp_path / "keep.py"), "--budget", "0.25", "--budget", "0.75"]
    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    found = read_lines(tmp_path / "out" / "records.jsonl", Record)
    rows = {r.run.budget: r.compute.layer_share for r in found if r.method.name == "keep" and r.compute}
    assert rows == {0.25: 0.25, 0.75: 0.75}
    (tmp_path / "some.py").write_text(CLOSED.format(at="None if budget > 0.5 else replace(self, share=budget)"))
    capsys.readouterr()
    line[line.index(str(tmp_path / "keep.py"))] = str(tmp_path / "some.py")
    assert main([*line, "--out", str(tmp_path / "other")]) == 3  # the row of 0.25 is there
    assert "method 'some': at(0.75, 4) gives no setting, and there is no knob to tune" in capsys.readouterr().err


@pytest.mark.parametrize("methods", [["static_skip"], ["static_skip", "static_exit"], ["full"]])
def test_what_meets_budgets_in_closed_form_is_not_fitted(
    methods: list[str], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *methods, "--model", str(tiny), "--task", "nano_summary", "--out", str(tmp_path / "out")]
    assert main([*line, "--processes", "1"]) == 2
    assert f"{', '.join(methods)}: nothing to fit: nothing is learnt, no knob needs tuning" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
