from dlbench.evaluation.settings import source_sha256
from dlbench.leaderboard.pages.method_docs import about, prose


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
