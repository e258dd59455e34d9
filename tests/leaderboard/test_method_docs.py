import shlex

import pytest
from record_factory import record, synthetic_run

from dlbench.evaluation.settings import source_sha256
from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.leaderboard.data.views import build_views
from dlbench.leaderboard.pages.method_docs import about, command, prose


def test_a_built_in_method_speaks_for_itself():
    said = about("calm", {"00" * 32})
    assert said.summary == "Leave as soon as the exit head, the state or a classifier is confident."
    assert said.papers == ("2207.07061",)
    assert "<pre>top2" in said.text and 'href="https://arxiv.org/abs/2207.07061"' in said.text
    assert said.knob == "threshold" and said.same is False
    assert {one.name for one in said.parameters} >= {"threshold", "measure", "decay"}
    assert about("oracle@full", ()).summary == about("oracle", ()).summary != ""


def test_the_code_that_ran_is_recognised():
    assert about("calm", {"00" * 32, source_sha256("calm")}).same is True


def test_a_name_is_looked_up_and_never_opened(tmp_path):
    secret = tmp_path / "secret.py"
    secret.write_text('"""Not to be shown."""\nraise SystemExit')
    for name in (str(secret), "../secret.py", "no_such_method", ""):
        assert about(name, ()).text == ""
        assert about(name, ()).same is None


def test_prose_is_escaped():
    assert prose("a <b> & arXiv 2410.20022.\n\n    <x>\n      y") == (
        '<p>a &lt;b&gt; &amp; <a href="https://arxiv.org/abs/2410.20022">arXiv 2410.20022</a>.</p>\n'
        "<pre>&lt;x&gt;\n  y</pre>"
    )


def test_the_command_repeats_the_rows():
    (view,) = build_views(build_tracks(synthetic_run(documents=5, tasks=["nano_math"]).records))
    mine = [entry for entry in view.entries if entry.method == "static_exit"]
    assert command(mine, "static_exit") == (
        "dlbench run --model nano --task nano_math --method static_exit "
        "--budget 0.25 --budget 0.5 --budget 0.75 --limit first:5"
    )


@pytest.mark.parametrize(
    ("drawn", "limit"), [(None, "first:40"), ("first", "first:40"), ("sample", "40"), ("all", "all")]
)
def test_the_command_takes_the_documents_that_the_record_says(drawn, limit):
    row = record()
    row = row.model_copy(update={"task": row.task.model_copy(update={"drawn": drawn})})
    (view,) = build_views(build_tracks([row]))
    assert command(view.entries, "static_skip").split("--limit ")[1] == limit


def test_a_hostile_name_is_one_word_of_the_command():
    (view,) = build_views(build_tracks([record("x; rm -rf ~", task="$(reboot)", run={"kv": "evict", "seed": 3})]))
    words = shlex.split(command(view.entries, "x; rm -rf ~"))
    assert "x; rm -rf ~" in words and "$(reboot)" in words
    assert words[-4:] == ["--seed", "3", "--kv", "evict"]
