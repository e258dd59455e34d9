#!/usr/bin/env python
"""Run every method on nano and write the table of docs/methods.md: `ci/zoo [OUT [SEEDS [DOCUMENTS [TASK…]]]]`.

One run fits and decodes everything at budgets 0.25, 0.5 and 0.75, and a second one the controls under kv `evict`, for
the methods that know no other policy. Without arguments: build/zoo, 3 seeds of what is fitted, 200 documents, all nano
tasks; some two hours on two cores. The same command goes on where it stopped.
"""

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dlbench.data.loader import expand_tasks
from dlbench.leaderboard.analysis.against import against, verdict
from dlbench.leaderboard.board import read_board
from dlbench.leaderboard.data.paired_scores import Entry, entries, matched
from dlbench.leaderboard.analysis.method_stats import Summary
from dlbench.leaderboard.data.tracks import Track
from dlbench.stats import Interval, corrected, retained

BUDGETS = (0.25, 0.5, 0.75)
DOCS = Path(__file__).parent.parent / "docs" / "methods.md"
BEGIN, END = "<!-- ci/zoo -->", "<!-- end -->"
CONTROLS = {"r": "random_skip", "u": "unified_skip", "c": "hidden_router · fixed_input"}
"""Sign in the table -> label of the control, with whatever follows it."""


def run(out: Path, seeds: int, documents: int, tasks: Sequence[str]) -> None:
    """Fit and decode."""
    command = [sys.executable, "-m", "dlbench", "run", "--fit-seeds", str(seeds), "--limit", str(documents)]
    command += ["--no-timing", *(word for task in tasks for word in ("--task", task))]
    subprocess.run([*command, "--method", "all", "--out", str(out)], check=True)
    evicting = ["--kv", "evict", "--method", "random_skip", "--set", "random_skip.per=token"]
    evicting += ["--method", "hidden_router", "--set", "hidden_router.fixed_input=true"]
    subprocess.run([*command, *evicting, "--out", str(out / "evict")], check=True)


def table(out: Path) -> str:
    """The results of a run, as Markdown."""
    board = read_board([out, out / "evict"])
    parts = []
    for view in board.views:
        if not view.suite:
            (track,) = view.tracks
            lines = _lines(track, entries(track, board.runs.scores, board.runs.sources))
            parts.append("\n".join([*lines, "", *_gaps(board.found[view.slug].summaries)]).rstrip())
    return "\n\n".join(parts)


def _gaps(summaries: Iterable[Summary]) -> Iterator[str]:
    """What the deployable counterpart of the oracle closes of its gap, beside the router per token."""
    for one in summaries:
        if one.label in ("sequence_router", "hidden_router") and one.gaps:
            shares = (f"{g.estimate:.2f} [{g.low:.2f}, {g.high:.2f}] at {b:.0%}" for b, g in sorted(one.gaps.items()))
            said = ", ".join(shares).replace("%", " %")
            yield f"Of the gap from random routing to the honest oracle `{one.label}` closes {said}.  "


def _lines(track: Track, known: Sequence[Entry]) -> Iterator[str]:
    full = next(one for one in known if one.row.label == "full")
    assert full.scores is not None
    mean = float(full.scores.mean())
    yield f"**{track.task.name}**: {track.task.metric}, {len(full.ids)} documents, full depth {mean:.3f}."
    yield ""
    yield "| | " + " | ".join(f"{budget:.0%}".replace("%", " %") for budget in BUDGETS) + " |"
    yield "| --- " * (1 + len(BUDGETS)) + "|"
    signs = _signs(known)
    for label in dict.fromkeys(one.row.label for one in known if one is not full):
        cells = []
        for budget in BUDGETS:
            found = [one for one in known if one.row.label == label and one.row.record.run.budget in (None, budget)]
            cells.append(_cell(found[0], full, signs) if found else "–")
        yield f"| {label} | " + " | ".join(cells) + " |"


def _cell(entry: Entry, full: Entry, signs: dict[tuple[int, str], str]) -> str:
    """What is kept, its interval, the realised layer share, and how the controls compare there."""
    quality = entry.row.record.quality
    if len(entry.rows) == 1 and quality is not None and quality.retained is not None and quality.retained_ci95:
        estimate, (low, high) = quality.retained, quality.retained_ci95  # of oracles: against full under their scoring
    elif entry.scores is None or entry.ids != full.ids or full.scores is None:
        return "–"
    elif (kept := retained(entry.scores, full.scores[0], clusters=entry.clusters)) is not None:
        estimate, low, high = kept.estimate, kept.low, kept.high
    else:
        return "–"
    marks = " ".join(f"{name}{signs[id(entry), name]}" for name in CONTROLS if (id(entry), name) in signs)
    share = f"{entry.layers:.0%}".replace("%", " %")
    return f"{estimate:.2f} [{low:.2f}, {high:.2f}] at {share} {marks}".strip()


def _signs(known: Sequence[Entry]) -> dict[tuple[int, str], str]:
    """Whether each row is better (+), worse (−) or neither (=) than each control at its own layer share.

    Better than every variant of the control, that is, or worse than every one. Tests are paired by document; of those
    of a table at most 5 % are expected to be false.
    """
    tests: list[tuple[tuple[int, str], Interval, float]] = []
    for entry in known:
        for name, label in CONTROLS.items():
            if entry.row.label.startswith(label) or entry.row.role != "method" or entry.scores is None:
                continue
            variants = matched(entry, [one for one in known if one.row.label.startswith(label)])
            found = against(entry, variants, clusters=entry.clusters)
            if found is not None:
                tests.append(((id(entry), name), *found))
    values = corrected([p for _, _, p in tests])
    signs = {1: "+", -1: "−", 0: "="}
    return {key: signs[verdict(difference, p)] for (key, difference, _), p in zip(tests, values, strict=True)}


def main(out: str = "build/zoo", seeds: str = "3", documents: str = "200", *tasks: str) -> None:
    """Run everything and put the table where it belongs."""
    run(Path(out), int(seeds), int(documents), expand_tasks(tasks or ("nano",)))
    text = DOCS.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    DOCS.write_text(f"{before}\n\n{table(Path(out))}\n\n{after}")


if __name__ == "__main__":
    main(*sys.argv[1:])
