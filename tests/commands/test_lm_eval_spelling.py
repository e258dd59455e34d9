"""Command lines as somebody who knows lm-eval writes them: each does what is meant, or is answered by one line."""

import os
import shlex
import subprocess
import sys

import pytest
from not_run import asked_of

from dlbench import cli


@pytest.fixture
def ran(monkeypatch, tmp_path):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    return asked_of(monkeypatch)


MEANT = [
    (
        "--model hf --model_args pretrained=mine,dtype=float16 --tasks nano_math,nano_summary --batch_size 8",
        {"models": ("mine",), "dtype": "float16", "tasks": ("nano_math", "nano_summary"), "batch_size": 8},
    ),
    (
        "--model mine --tasks nano_math nano_summary --num_fewshot 2 --limit 10 --output_path results",
        {"tasks": ("nano_math", "nano_summary"), "fewshot": 2, "limit": 10, "out": "results"},
    ),
    (
        "--model_args pretrained=mine --tasks nano_math --apply_chat_template "
        "--system_instruction 'Be brief, please.' --batch_size auto:4",
        {"chat_template": "on", "system_instruction": "Be brief, please.", "batch_size": None},
    ),
    (
        "--model hf --model_args pretrained=some/model,revision=abc,trust_remote_code=True --device cpu",
        {"models": ("some/model@abc",), "trust_remote_code": True, "device": "cpu"},
    ),
    (
        "-m nano -t nano_math -b 4 -f 1 -L 5 -o there -B 0.5",
        {"models": ("nano",), "batch_size": 4, "fewshot": 1, "limit": 5, "out": "there", "budgets": (0.5,)},
    ),
    (
        "--model nano --tasks nano_math --gen_kwargs temperature=0,max_gen_toks=16,do_sample=False --log_samples",
        {"max_new_tokens": 16, "tasks": ("nano_math",)},
    ),
    (
        "--model nano,mine --method static_skip,static_exit --budget 0.25,0.5 --limit all",
        {"models": ("nano", "mine"), "methods": ("static_skip", "static_exit"), "budgets": (0.25, 0.5), "limit": None},
    ),
    (
        "--model_args pretrained=mine parallelize=True --include_path ~/none --include_path . --max_new_tokens 8",
        {"device_map": "auto", "max_new_tokens": 8, "include": ("~/none", ".")},
    ),
]
ANSWERED = [
    (
        "run --model nano --gen_kwargs temperature=0.7,do_sample=True",
        "temperature=0.7: decoding is greedy",
    ),
    ("run --model nano --gen_kwargs until=END", "stop texts are the task's"),
    (
        "--model hf --model_args pretrained=mine --tasks nano_math",
        "name a command first, such as `dlbench run --model",
    ),
    ("run --model vllm --model_args pretrained=mine", "--model vllm: that is a backend of lm-eval"),
    ("run --model hf --tasks nano_math", "name the model, --model ORG/NAME or a folder"),
    ("run --model_args pretrained=mine,load_in_4bit=True", "--model_args load_in_4bit=True: there is no such option"),
    ("run --model_args pretrained=mine,peft=adapter", "--model adapter"),
    ("run --model nano --use_cache here", "samples are kept under --out"),
    ("run --model nano --apply_chat_template rag", "write --chat-template on"),
    ("run --model nano --limit 0.1", "limit '0.1': give a number, or `all`"),
    ("run --model nano --tasks list", "unknown task 'list'"),
    ("run --prompt 'Say {input}:'", "a text with {input} is a --template"),
    ("run --model nano --kv_policy project", "No such option: --kv"),
    ("run --fit", "is called --refit"),
    ("run --no-fit", "is the default"),
    ("fit calm --again", "is called --refit"),
]


def asked_by(spec, name):
    value = getattr(spec, name) if hasattr(spec, name) else getattr(spec.sources, name)
    return str(value) if name == "out" else value


@pytest.mark.parametrize(("line", "meant"), MEANT, ids=[line for line, _ in MEANT])
def test_what_is_meant_is_done(ran, tmp_path, monkeypatch, line, meant):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "none").mkdir()
    assert cli.main(["run", *shlex.split(line)]) == 0
    (spec,) = ran
    assert {name: asked_by(spec, name) for name in meant} == meant


@pytest.mark.parametrize(("line", "said"), ANSWERED, ids=[line for line, _ in ANSWERED])
def test_what_is_not_there_is_answered_by_one_line(ran, capsys, line, said):
    assert cli.main(shlex.split(line)) == 2
    err = capsys.readouterr().err
    assert said in err and err.startswith("dlbench: ") and err.count("\n") == 1 and ran == []


def test_a_comma_in_the_name_of_a_file_is_a_comma(ran, tmp_path):
    (tmp_path / "a,b.jsonl").write_text('{"input": "a", "references": ["b"]}\n')
    assert (
        cli.main(["run", "--task", "file:a,b.jsonl", "--set", "static_skip.only=[0,2]", "--method", "static_skip"]) == 0
    )
    assert ran[0].tasks == ("file:a,b.jsonl",) and ran[0].settings == {"static_skip": {"only": [0, 2]}}


def test_a_folder_after_an_equals_sign_is_expanded(ran, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.main(["run", "--data-dir=~/mine", "--model=~/mine", "--out=~/out"]) == 0
    assert ran[0].sources.data_dir == f"{tmp_path}/mine" and ran[0].out == tmp_path / "out"


def test_the_present_folder_is_a_folder(ran, tmp_path, monkeypatch):
    (tmp_path / "mine" / "config.json").touch()
    monkeypatch.chdir(tmp_path / "mine")
    assert cli.main(["run", "--model", ".", "--out", "../out", "--data-dir", "."]) == 0
    assert ran[0].models == (".",)


@pytest.mark.parametrize("command", ["run", "fit", "board", "list methods"])
def test_an_error_points_to_the_help_of_its_command(ran, capsys, command):
    assert cli.main([*command.split(), "--nonsense"]) == 2
    assert f"(see `dlbench {command} --help`)" in capsys.readouterr().err


def test_fit_has_every_option_that_decides_what_is_fitted(monkeypatch, tmp_path):
    """All that a run is asked for, but for what concerns scored documents, times, plans, trackers and submissions."""
    import typer

    app = typer.main.get_command(cli.app)
    names = {name: {p.name for p in app.commands[name].params} for name in ("run", "fit")}
    of_scoring = {"dry_run", "as_json", "limit", "batch_size", "timing", "official", "author", "config", "track"}
    assert names["run"] - names["fit"] == of_scoring


def test_help_has_groups(capsys):
    assert cli.main(["run", "--help"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f"\n{group}:\n") for group in ("Model", "Tasks and prompts", "Methods", "Output", "Options")]
    assert places == sorted(places)
    assert shown.index("--num-fewshot") < shown.index("\nMethods:\n") < shown.index("--budget")
    assert cli.main(["--help"]) == 0
    assert "\nLook at results:\n  board" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("run --task nano_m", "nano_math"),
        ("run --method static_", "static_skip"),
        ("fit hidden", "hidden_router"),
        ("--vers", "--version"),
    ],
)
def test_the_shell_completes_names(capsys, monkeypatch, words, offered):
    monkeypatch.setenv("_DLBENCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"dlbench {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    with pytest.raises(SystemExit):
        cli.main([])
    assert offered in capsys.readouterr().out.split()


def test_a_terminal_that_knows_ascii_only_gets_plain_characters():
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for line in ("train --help", "list tasks", "run --metod x"):
        done = subprocess.run([sys.executable, "-m", "dlbench", *line.split()], capture_output=True, env=env)
        assert done.returncode == (2 if "metod" in line else 0)
        assert (done.stdout + done.stderr).isascii() and b"Traceback" not in done.stderr
