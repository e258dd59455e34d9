"""Names and folders that people give: homes, dots, links and names that no file system takes."""

import os
from pathlib import Path

import pytest
import small_model
from not_run import asked_of

from dlbench import cli
from dlbench.errors import DlbenchError
from dlbench.models import catalog
from dlbench.models.checkpoint.hashes import fingerprint
from dlbench.models.loading import embedded_folder, load
from dlbench.records.schema import BackboneInfo
from dlbench.running import config as spec
from dlbench.system.paths import model_path, record_name
from dlbench.train.spec import TrainSpec

SHA = "ab" * 32


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A home folder, in which the process stands."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ran(monkeypatch):
    return asked_of(monkeypatch)


# ---- models


@pytest.mark.parametrize(
    ("stand", "given", "name"),
    [
        ("", "~/a/small", "small"),
        ("", "~/a/./small/", "small"),
        ("a", "small", "small"),
        ("a", "./small", "small"),
        ("a/small", ".", "small"),
        ("a/small", "./", "small"),
        ("a/small/in", "..", "small"),
        ("a/small/in", "../", "small"),
        ("a/small/in", "../../small/in/..", "small"),
        ("a", "link", "link"),
    ],
)
def test_a_model_is_a_folder_however_it_is_written(stand, given, name, home, small, monkeypatch):
    (home / "a" / "small").mkdir(parents=True)
    for file in small.iterdir():
        os.link(file, home / "a" / "small" / file.name)
    (home / "a" / "small" / "in").mkdir()
    (home / "a" / "link").symlink_to("small")
    monkeypatch.chdir(home / stand)
    catalog.check_model(given)
    found = load(given)
    assert (found.name, found.source, found.sha256) == (name, given, fingerprint(small))


def test_the_home_folder_itself_may_be_a_model(small, monkeypatch):
    monkeypatch.setenv("HOME", str(small))
    catalog.check_model("~")
    assert load("~").name == "small"


def test_an_embedded_name_is_no_folder(home, small):
    (home / "nano").symlink_to(small)
    catalog.check_model("nano")
    assert load("nano").sha256 == fingerprint(embedded_folder("nano"))
    assert load("./nano").sha256 == fingerprint(small)


LONG = "x" * 256
NO_MODELS = {
    "256 bytes": (LONG, "File name too long; give a folder or a hub name"),
    "256 bytes of 128 characters": ("é" * 128, "File name too long"),
    "too long within": (f"{LONG}/m", "File name too long"),
    "too long in all": ("/".join(["x" * 100] * 50), "File name too long"),
    "NUL": ("a\0b", "it holds a NUL character"),
    "a home that nobody has": ("~nobody-at-all/m", "home"),
    "a link to nothing": ("dangling", "is a link to gone, which is not there: give a folder"),
    "a link to itself": ("loop", "is a link to loop, which is not there"),
    "weights": ("./model.safetensors", "is a file: give the folder that holds config.json"),
    "a configuration": ("~/config.json", "is a file: give the folder"),
}


@pytest.mark.parametrize("name", NO_MODELS)
def test_what_is_no_folder_and_no_hub_name_is_told(name, home):
    given, message = NO_MODELS[name]
    (home / "dangling").symlink_to("gone")
    (home / "loop").symlink_to("loop")
    for file in ("model.safetensors", "config.json"):
        (home / file).touch()
    for check in (catalog.check_model, load):
        with pytest.raises(DlbenchError) as refused:
            check(given)
        assert message in str(refused.value) and len(str(refused.value)) < 300


def test_a_long_name_is_one_line(ran, home, capsys):
    for line in ("run --model", "run --out", "train sorted --out o --model", "train sorted --out", "board",
                 "compare", "bench --out", "prefetch gsm8k --to"):  # fmt: skip
        more = ["a", "b"] if line == "compare" else []
        assert cli.main([*line.split(), LONG, *more]) == 2
        out, err = capsys.readouterr()
        assert "File name too long" in err and err.count("\n") == 1 and out == ""
    assert ran == [] and list(home.iterdir()) == []


@pytest.mark.parametrize(
    "folder",
    ["x" * 255, "name\nof two lines", "right\u202eleft", os.fsdecode(b"caf\xe9"), "\x1b[1mbold", "日本" * 40],
)
def test_records_take_the_name_of_any_folder(folder, tmp_path):
    (tmp_path / folder).mkdir()
    name = record_name(tmp_path / folder)
    made = BackboneInfo(name=name, family="llama", layers=4, dtype="float32", sha256=SHA, base_sha256=SHA)
    assert made.name == name and BackboneInfo.model_validate_json(made.model_dump_json()) == made
    plain = folder.encode("utf-8", "replace").decode()
    assert name == plain or not folder.isprintable() or len(folder) > 200


def test_what_is_not_there_may_be_a_hub_name(home):
    for given in ("org/name", "org/name@main", "name", ""):
        assert model_path(given) is None


# ---- what is written


@pytest.mark.parametrize(
    ("given", "wanted"), [("~/out", "out"), ("~", "."), ("a/..", "."), ("a/b/..", "a"), ("a/../out", "a/../out")]
)
def test_an_output_folder_has_a_home_and_a_name(given, wanted, home):
    (home / "a" / "b").mkdir(parents=True)
    run, training = spec.RunSpec(out=Path(given)), TrainSpec("sorted", ("nano_math",), Path(given))
    for out in (run.out, training.out):
        assert out.resolve() == (home / wanted).resolve() and out.name not in ("..", "~")


def test_a_home_is_no_folder_called_tilde(ran, home, capsys):
    assert cli.main(["run", "--method", "full", "--out=~/new"]) == 0
    assert ran[0].out == home / "new"
    (home / "thesis.tex").touch()
    for place in ("~", ".", "./"):
        assert cli.main(["run", "--method", "full", f"--out={place}"]) == 2
        assert "holds files but no run.json" in capsys.readouterr().err
    assert [path.name for path in home.iterdir()] == ["thesis.tex"] and len(ran) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (f"a/{LONG}", "File name too long"),
        ("x" * 200 + "/" + "/".join(["y" * 200] * 19), "File name too long"),  # what stands in it would be
        ("~nobody-at-all", "home"),
        ("dangling", "cannot be written (", ),
        ("dangling/within", "cannot be written (", ),
        ("a\0b", "it holds a NUL character"),
    ],
)  # fmt: skip
def test_an_output_folder_that_cannot_be_is_told(given, message, home):
    (home / "dangling").symlink_to("gone")
    before = sorted(home.iterdir())
    for make in (lambda out: spec.RunSpec(out=out), lambda out: TrainSpec("sorted", ("nano_math",), out)):
        with pytest.raises(DlbenchError) as refused:
            make(Path(given)).check()
        text = str(refused.value)
        assert text.startswith("--out ") and message in text and len(text) < 300
    assert sorted(home.iterdir()) == before


def test_other_commands_know_homes_too(home, capsys):
    for options, said in (
        (["board", "~/none"], f"{home}/none holds no records.jsonl"),
        (["compare", "~/none", "a", "b"], f"{home}/none: no records.jsonl"),
        (["bench", "--out=~/none/b.json"], f"--out {home}/none/b.json cannot be written"),
    ):
        assert cli.main(options) == 2
        assert said in capsys.readouterr().err
