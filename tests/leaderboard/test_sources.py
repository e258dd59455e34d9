"""Boards, headlines and comparisons hold what documents share; nothing that is said of scores forgets it."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from record_factory import synthetic_run

from dlbench.cli import main
from dlbench.data.rows.sources import source
from dlbench.errors import RecordError
from dlbench.leaderboard.analysis.compare import compare
from dlbench.leaderboard.analysis.score_matrix import ScoreMatrix
from dlbench.leaderboard.board import read_board
from dlbench.leaderboard.data.run_files import read_runs
from dlbench.leaderboard.exports import board_json
from dlbench.records.jsonl import read_lines, write_lines
from dlbench.records.schema import Asked, Scores, SharedSources

ROOT = Path(__file__).parents[2]
COPIES = 3


def copied(run, folder, sources=True, documents=False):
    """A run in which every document stands three times, from one source: no more is known than from one of them."""
    scores = {
        key: {f"{one.id}#{copy}": one.score for one in several for copy in range(COPIES)}
        for key, several in run.samples.items()
    }
    shared = {
        track: {f"{one.id}#{copy}": hashed(one.id) for one in run.asked if one.track == track for copy in range(COPIES)}
        for track in {one.track for one in run.asked}
    }
    folder.mkdir()
    records = [r.model_copy(update={"task": r.task.model_copy(update={"n": COPIES * r.task.n})}) for r in run.records]
    write_lines(folder / "records.jsonl", records)
    write_lines(folder / "timing.jsonl", run.timings)
    write_lines(folder / "scores.jsonl", [Scores(key=key, scores=one) for key, one in scores.items()])
    if sources:
        write_lines(folder / "sources.jsonl", [SharedSources(track=t, sources=one) for t, one in shared.items()])
    if documents:
        lines = [
            Asked(track=t, id=i, prompt="", references=(), source=s)
            for t, one in shared.items()
            for i, s in one.items()
        ]
        write_lines(folder / "documents.jsonl", lines)
    return folder


def hashed(text):
    return source({"x": text}, "x", None, "t")


def figures(folder):
    """Everything that a board says in numbers."""
    board = read_board([folder])
    said = json.loads(board_json(board.runs, board.views, board.standings))
    views = [{**view, "documents": 0} for view in said["views"]]
    return views, board


@pytest.fixture(scope="module")
def run():
    return synthetic_run(documents=40, tasks=("nano_d2t", "nano_translate"))


@pytest.fixture(scope="module")
def single(run, tmp_path_factory):
    return figures(run.write(tmp_path_factory.mktemp("single")))


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-3, abs=1e-4)
    return one == (re.sub("(000|too few) documents", r"\1 sources", other) if isinstance(other, str) else other)


def test_copies_of_documents_tell_a_board_nothing_new(run, single, tmp_path):
    """Ranks, intervals, fronts, areas, compute@95, the gap, over each task and over both: as of one copy of each."""
    views, board = figures(copied(run, tmp_path / "copies"))
    assert len(views) == len(single[0]) == 3
    for view, other in zip(views, single[0], strict=True):
        for rows in ("rows", "methods"):
            for one, two in zip(view[rows], other[rows], strict=True):
                assert same(one, two), (view["title"], one, two)
    assert any(one["gap_closed"] for view in views for one in view["methods"])
    assert any(one["rank"] for view in views for one in view["rows"])
    told, before = (one.claims for one in (board, single[1]))
    assert [claim.sentence for claim in told] == [claim.sentence for claim in before]
    assert [claim.p for claim in told] == pytest.approx([claim.p for claim in before])
    said = [one.headlines() for one in (board, single[1])]
    assert said[0] == said[1] and len(said[0]) > 5


def test_without_their_sources_copies_would_pass_for_evidence(run, single, tmp_path):
    views, _ = figures(copied(run, tmp_path / "copies", sources=False))
    widths = [
        [one["area"]["high"] - one["area"]["low"] for view in several for one in view["methods"] if one["area"]]
        for several in (views, single[0])
    ]
    assert np.mean(widths[0]) < 0.7 * np.mean(widths[1])


def test_compare_holds_the_sources(run, single, tmp_path, capsys):
    folder = copied(
        run, tmp_path / "copies", sources=False, documents=True
    )  # a run's own folder says so in its documents
    (one, *_), (two, *_) = (compare(f, "static_skip", "calm", at=0.5) for f in (folder, single[1].run_dirs[0]))
    assert (one.n, one.sources, two.n, two.sources) == (120, 40, 40, None)
    assert one.difference.low == pytest.approx(two.difference.low, abs=1e-4)
    assert one.difference.high == pytest.approx(two.difference.high, abs=1e-4)
    assert (one.p, one.detectable) == (pytest.approx(two.p), pytest.approx(two.detectable))
    assert main(["compare", str(folder), "static_skip", "calm", "--at", "0.5"]) == 0
    assert "Documents that share a source are resampled and swapped together: 40 sources" in " ".join(
        capsys.readouterr().out.split()
    )


def test_sources_of_two_tasks_are_set_apart(run, tmp_path):
    folder = copied(run, tmp_path / "copies")
    lines = list(read_lines(folder / "sources.jsonl", SharedSources))
    names = {id_: place % 7 for one in lines for place, id_ in enumerate(one.sources)}
    write_lines(  # both tasks have sources of the same names
        folder / "sources.jsonl",
        [one.model_copy(update={"sources": {id_: f"{names[id_]:016x}" for id_ in one.sources}}) for one in lines],
    )
    board = read_board([folder])
    (suite,) = (view for view in board.views if view.suite)
    found = ScoreMatrix(suite, board.runs.scores, board.runs.sources)
    assert len(found.clusters) == len(found.documents) == 240 and len(set(found.clusters)) == 14
    lines[0] = lines[0].model_copy(update={"sources": {}})  # one task without any
    write_lines(folder / "sources.jsonl", lines)
    runs = read_runs([folder])
    assert len(set(ScoreMatrix(suite, runs.scores, runs.sources).clusters)) == 120 + 40


def test_published_runs_keep_the_sources_without_the_documents(run, tmp_path):
    """`ci/publish.py` writes them hashed, and the board is the same."""
    folder = copied(run, tmp_path / "run", sources=False, documents=True)
    (tmp_path / "ci").mkdir()
    shutil.copy(ROOT / "ci" / "publish.py", tmp_path / "ci" / "publish.py")
    command = [sys.executable, str(tmp_path / "ci" / "publish.py"), str(folder), "public"]
    subprocess.run(command, check=True, capture_output=True)
    public = tmp_path / "leaderboard" / "records" / "public"
    assert not (public / "documents.jsonl").exists()
    assert read_runs([public]).sources == read_runs([folder]).sources != {}
    assert read_runs([public, folder]).sources == read_runs([folder]).sources
    assert b"sources" in (public / "sources.jsonl").read_bytes()


def test_two_folders_must_agree_about_a_source(run, tmp_path):
    one, other = (copied(run, tmp_path / name) for name in ("one", "other"))
    lines = list(read_lines(other / "sources.jsonl", SharedSources))
    id_ = next(iter(lines[0].sources))
    lines[0] = lines[0].model_copy(update={"sources": {**lines[0].sources, id_: "0" * 16}})
    write_lines(other / "sources.jsonl", lines)
    with pytest.raises(
        RecordError, match=f"sources.jsonl: document '{id_}' of .* has another source in another folder"
    ):
        read_runs([one, other])


# ---- nobody forgets them

NEED = {
    "compute_at", "contrast", "gap_closed", "matched_difference", "mean_interval", "minimum_detectable",
    "paired_difference", "pareto_probability", "permutation_p", "quality", "ratio_interval", "retained", "Resample",
    "Table", "band", "area",
}  # fmt: skip
"""What takes `clusters=`."""
TAKE = {"ScoreMatrix": 3, "claims": 3, "scored_entries": 3, "standings": 3}
"""What takes a run's sources, and as which argument."""


def calls(path):
    """(name, positional arguments, names of the others) of what a file calls of the statistics and the leaderboard."""
    tree = ast.parse(path.read_text())
    modules = {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            foreign = isinstance(node.func, ast.Name) and "dlbench" not in modules.get(name, "dlbench" * (name in own))
            partial = name == "partial"
            args = node.args[1:] if partial else node.args
            if partial or not foreign:
                yield (ast.unparse(node.args[0]) if partial else name), len(args), {k.arg for k in node.keywords}


def test_every_call_of_the_statistics_says_what_documents_share():
    files = [p for p in (ROOT / "dlbench").rglob("*.py") if "stats" not in p.relative_to(ROOT).parts]
    files += [*(ROOT / "leaderboard").rglob("*.py"), ROOT / "ci" / "zoo.py"]
    seen = set()
    for path in files:
        for name, given, named in calls(path):
            if name in NEED:
                assert "clusters" in named, f"{path}: {name} without clusters"
                seen.add(name)
            if name in TAKE:
                assert given >= TAKE[name] or "sources" in named or not given, f"{path}: {name} without sources"
                seen.add(name)
    assert seen >= {
        "Table",
        "band",
        "compute_at",
        "gap_closed",
        "pareto_probability",
        "permutation_p",
        *TAKE,
        "quality",
    }
