"""Names, paths, lines, links and code that strangers hand in: refused, or named, in one line."""

import io

import pytest
from not_run import asked_of
from rich.console import Console

from dlbench import cli
from dlbench.data import mirrors
from dlbench.errors import DlbenchError
from dlbench.terminal import progress

LONG = "x" * 256


@pytest.fixture
def ran(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").touch()
    return asked_of(monkeypatch)


NAMES = {
    "--out": [LONG, "dangling", "dangling/x", "file", "file/x", "a/../" * 1000],
    "--model": [LONG, "dangling", "file"],
    "--task": [f"file:{LONG}", f"{LONG}.yaml", "file:dangling", "dangling.yaml", "[/b]", "file:[/b].jsonl"],
    "--method": [LONG, f"{LONG}.py", "dangling", "dangling.py", "[/b].py"],
    "--data-dir": [LONG, "dangling", "file"],
    "--include-path": [LONG, "dangling", "file"],
    "--device-map": [f"{LONG}.json", "dangling.json", "[/b]"],
    "--time-limit": [LONG, "[/b]"],
}


@pytest.mark.parametrize(("option", "name"), [(option, name) for option, names in NAMES.items() for name in names])
def test_a_name_that_leads_nowhere_is_one_line(ran, capsys, option, name):
    assert cli.main(["run", "--method", "full", option, name]) == 2 and ran == []
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "fault of dlbench" not in said


def test_markup_in_a_name_is_a_name(monkeypatch):
    drawn = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=drawn, force_terminal=True, width=100))
    with progress.Progress(shown=True) as shown, shown.bar("decode", 2) as done:
        done(1, "[/b] on [bold]m")
        with shown.stage("[/b]", seconds=2.0):
            shown.note("[/b] is a model")
    assert "[/b] on [bold]m" in drawn.getvalue() and "[/b] is a model" in drawn.getvalue()


CODE = "task: mine\noutput_type: generate_until\nprocess_results: !function code.score\n"


@pytest.mark.parametrize("included", [False, True])
def test_a_task_that_runs_code_is_named_and_never_official(ran, tmp_path, capsys, included):
    (tmp_path / "part.yaml").write_text(CODE)
    (tmp_path / "mine.yaml").write_text("include: part.yaml\ntask: mine\n" if included else CODE)
    (tmp_path / "code.py").write_text("raise SystemExit('ran')\n")
    assert cli.main(["run", "--method", "full", "--task", "mine.yaml"]) == 0
    said = capsys.readouterr().err
    assert said.count("mine.yaml' runs code of its own") == 1 and len(ran) == 1
    assert cli.main(["run", "--method", "full", "--task", "mine.yaml", "--official"]) == 2
    assert "nobody has vouched for" in capsys.readouterr().err and len(ran) == 1
    assert cli.main(["run", "--method", "full", "--task", "nano", "--official"]) == 0  # dlbench's own functions
    assert capsys.readouterr().err == ""


def test_a_line_of_50_megabytes_is_no_document(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b'{"input": "a", "references": ["b"]}\n' + b"x" * (50 << 20))
    with pytest.raises(DlbenchError, match=r"mine\.jsonl, line 2: longer than 16,777,216 bytes"):
        mirrors.read_documents(path)


def test_a_link_out_of_a_mirror_is_refused(tmp_path):
    (tmp_path / "secret.jsonl").write_text('{"input": "a", "references": ["b"]}\n')
    mirror = tmp_path / "mirrors" / "mine"
    mirror.mkdir(parents=True)
    (mirror / "test.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(DlbenchError, match="is a link out of its mirror"):
        mirrors.Mirror(mirror).split("test")
    (tmp_path / "mirrors" / "shared.jsonl").write_text("{}\n")
    (mirror / "fit.jsonl").symlink_to(tmp_path / "mirrors" / "shared.jsonl")
    assert mirrors.Mirror(mirror).split("fit").is_file()
