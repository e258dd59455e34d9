"""The commands that a page gives for making its rows again."""

import shlex

import pytest
from record_factory import record, synthetic_run

from dlbench.leaderboard.data.run_again import commands
from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.leaderboard.data.views import build_views


def rows_of(method, records):
    views = build_views(build_tracks(records))
    return [entry for view in views if not view.suite for entry in view.entries if entry.method == method]


def changed(row, part, **values):
    return row.model_copy(update={part: getattr(row, part).model_copy(update=values)})


def test_one_line_takes_all_tasks_and_budgets_of_a_run():
    records = synthetic_run(documents=5, tasks=["nano_math", "nano_summary"]).records
    assert commands(rows_of("static_exit", records), "static_exit") == [
        "dlbench run --model nano --task nano_math --task nano_summary --method static_exit "
        "--budget 0.25 --budget 0.5 --budget 0.75 --limit first:5"
    ]


@pytest.mark.parametrize(
    ("drawn", "limit"), [(None, "first:40"), ("first", "first:40"), ("sample", "40"), ("all", "all")]
)
def test_a_line_takes_the_documents_that_the_record_says(drawn, limit):
    (line,) = commands(rows_of("static_skip", [changed(record(), "task", drawn=drawn)]), "static_skip")
    assert line.split("--limit ")[1] == limit


def test_each_model_and_number_of_documents_takes_a_line_of_its_own():
    few = changed(record(), "task", drawn="sample", name="elsewhere", n=12)
    other = changed(record(), "backbone", name="another", sha256="22" * 32, base_sha256="22" * 32)
    entries = rows_of("static_skip", [record(), few, other])
    lines = commands(entries, "my_method.py", "--out", "my run")
    assert [shlex.split(line)[3] for line in lines].count("another") == 1 and len(lines) == 3
    assert {shlex.split(line)[shlex.split(line).index("--limit") + 1] for line in lines} == {"first:40", "12"}
    assert all(shlex.split(line)[-2:] == ["--out", "my run"] and "my_method.py" in line for line in lines)


def test_fits_under_several_seeds_are_asked_for():
    several = [record("hidden_router", run={"seed": seed}) for seed in (0, 1, 2)]
    (line,) = commands(rows_of("hidden_router", several), "hidden_router")
    assert line.endswith("--fit-seeds 3")


def test_a_hostile_name_is_one_word():
    row = record("x; rm -rf ~", task="$(reboot)", run={"kv": "evict", "seed": 3})
    (line,) = commands(rows_of("x; rm -rf ~", [row]), "x; rm -rf ~")
    words = shlex.split(line)
    assert "x; rm -rf ~" in words and "$(reboot)" in words
    assert words[-4:] == ["--seed", "3", "--kv", "evict"]
