#!/usr/bin/env python
"""Compare the speed of two commits: `ci/speed.py [BASE] [HEAD] [--pairs N] [--only PART,…] [--model NAME] [--out F]`.

Runs `dlbench bench --quick` of both by turns (base, head, head, base, …) in this environment, on copies in a temporary
folder, so that the checkout may be edited meanwhile. Without HEAD it is the working tree, with what is not committed
but without what git ignores. Each pair of runs gives one change per ratio of the benchmark.

A ratio moved beyond noise where the confidence interval of the median change, an order statistic of the pairs that
assumes no distribution, leaves out "no change"; at 99 % that takes at least 8 pairs, with fewer the answer is "cannot
tell". Every ratio is judged by itself: of 100 ratios of equal code one is said to have moved.

Exits with 1 where a ratio got worse beyond noise, with 2 where nothing could be compared, and with 130 after Ctrl-C,
which prints the pairs that were complete. Leave the machine idle otherwise.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

ROOT = Path(__file__).resolve().parent.parent
WORKING_TREE = "the working tree"
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str
    """As it was given, with the short hash of its commit."""
    tree: str
    """Hash of the files' tree, in git."""


@dataclass
class Runs:
    """What the runs of both sides measured."""

    base: list[dict[str, Any]] = field(default_factory=list)
    head: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False
    """Whether Ctrl-C came before the last."""

    @property
    def pairs(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return list(zip(self.base, self.head, strict=False))

    @property
    def processors(self) -> list[str]:
        return sorted({run["machine"]["processor"] for run in [*self.base, *self.head]})


@dataclass(frozen=True)
class Moved:
    """How one ratio moved; higher is better."""

    name: str
    base: tuple[float, ...]
    """One value per pair."""
    head: tuple[float, ...]
    level: float

    @property
    def changes(self) -> tuple[float, ...]:
        """Relative change of each pair."""
        return tuple(head / base - 1 for base, head in zip(self.base, self.head, strict=True))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Confidence interval of the median change; None where there are too few pairs for one."""
        count = len(self.base)
        cut = int((2 * binom.cdf(np.arange(count), count, 0.5) <= 1 - self.level + _ROUNDING).sum())
        ordered = sorted(self.changes)
        return (ordered[cut - 1], ordered[-cut]) if cut else None

    @property
    def verdict(self) -> str:
        if self.interval is None:
            return "cannot tell"
        low, high = self.interval
        return "better" if low > 0 else "WORSE" if high < 0 else "within noise"


def git(*arguments: str, **environment: str) -> bytes:
    """Return what git says; one line and exit code 2 where it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, env={**os.environ, **environment})
    if done.returncode:
        fail(f"git {arguments[0]}: {done.stderr.decode().strip()}")
    return done.stdout


def fail(reason: str) -> None:
    """End with exit code 2."""
    print(f"ci/speed.py: {reason}", file=sys.stderr)
    raise SystemExit(2)


def committed(name: str) -> Side:
    """Return the side of a commit, a branch or a tag."""
    asked = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        fail(f"{name!r} is no commit, branch or tag of this repository")
    commit = done.stdout.strip()
    short = git("rev-parse", "--short", commit).decode().strip()
    return Side(short if commit.startswith(name) else f"{name} ({short})", _tree_of(commit))


def working_tree() -> Side:
    """Return the side of the files as they stand now; the index of the checkout is left alone."""
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git("read-tree", "HEAD", **index)
        git("add", "--all", **index)
        return Side(WORKING_TREE, git("write-tree", **index).decode().strip())


def _tree_of(commit: str) -> str:
    return git("rev-parse", f"{commit}^{{tree}}").decode().strip()


def copied(side: Side, folder: Path) -> Path:
    """Write the files of a side into a folder."""
    with tarfile.open(fileobj=io.BytesIO(git("archive", "--format=tar", side.tree))) as archive:
        archive.extractall(folder, filter="data")
    return folder


def benched(checkout: Path, options: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark of a checkout; return its JSON."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.json"
        command = [sys.executable, "-m", "dlbench", "bench", "--quick", *options, "--out", str(out)]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-8:]
            fail("\n".join([f"the benchmark of {checkout.name} ended with {done.returncode}:", *said]))
        measured: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return measured


def measure(base: Side, head: Side, pairs: int, options: Sequence[str]) -> Runs:
    """Run both by turns, so that a machine that becomes slower or faster does so for both."""
    runs = Runs()
    with tempfile.TemporaryDirectory(prefix="dlbench-speed-") as folder:
        checkouts = {"base": copied(base, Path(folder) / "base"), "head": copied(head, Path(folder) / "head")}
        order = [name for pair in range(pairs) for name in (("base", "head"), ("head", "base"))[pair % 2]]
        try:
            for number, name in enumerate(order, start=1):
                begun = time.perf_counter()
                getattr(runs, name).append(benched(checkouts[name], options))
                took = time.perf_counter() - begun
                print(f"run {number} of {len(order)}: {name}, {took:.0f} s", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            runs.stopped = True
    return runs


def compared(runs: Runs, level: float) -> tuple[list[Moved], dict[str, list[str]]]:
    """Return how each ratio moved that every run has, and the names of the others by the side that has them."""
    names = list(dict.fromkeys(name for pair in runs.pairs for run in pair for name in run["ratios"]))
    bases, heads = ([pair[side]["ratios"] for pair in runs.pairs] for side in (0, 1))
    moved, rest = [], {"base": [], "head": [], "some runs": []}  # type: tuple[list[Moved], dict[str, list[str]]]
    for name in names:
        in_base, in_head = ([name in ratios for ratios in side] for side in (bases, heads))
        if all(in_base) and all(in_head):
            base, head = (tuple(ratios[name] for ratios in side) for side in (bases, heads))
            moved.append(Moved(name, base, head, level))
        else:
            rest["base" if not any(in_head) else "head" if not any(in_base) else "some runs"].append(name)
    return moved, rest


def table(moved: Sequence[Moved], rest: Mapping[str, Sequence[str]], level: float) -> str:
    """Return the Markdown table, with what was not compared below it."""
    lines = [f"| ratio, higher is better | base | head | change | {_level(level)} interval | |"]
    lines.append("| --- | --: | --: | --: | --: | --- |")
    for one in moved:
        medians = [f"{np.median(values):.3f}" for values in (one.base, one.head)]
        interval = "–" if one.interval is None else " to ".join(map(_percent, one.interval))
        cells = [one.name, *medians, _percent(float(np.median(one.changes))), interval, one.verdict]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\nonly in {side}: {', '.join(names)}" for side, names in rest.items() if names]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{share:+.1%}".replace("%", " %")


def _level(level: float) -> str:
    return f"{100 * level:g} %"


def least_pairs(level: float) -> int:
    """Return the least number of pairs that can tell a change at a level of confidence."""
    return next(count for count in range(1, 100) if 2 * 0.5**count <= 1 - level + _ROUNDING)


def main(base: Side, head: Side, pairs: int, level: float, options: Sequence[str], out: Path | None = None) -> int:
    """Measure, print the table and write the JSON file; return the exit code."""
    print(f"base: {base.name}\nhead: {head.name}", flush=True)
    if base.tree == head.tree:
        print("both are the same files: what moves is noise", flush=True)
    if pairs < least_pairs(level):
        print(f"{pairs} pairs cannot tell at {_level(level)}; {least_pairs(level)} could", flush=True)
    runs = measure(base, head, pairs, options)
    moved, rest = compared(runs, level)
    print(f"processor: {'; '.join(runs.processors) or 'unknown'}\npairs of runs: {len(runs.pairs)}\n")
    if len(runs.processors) > 1:
        print("the processor changed between runs: what moved may be due to that\n")
    print(table(moved, rest, level))
    if out is not None:
        out.write_text(json.dumps(_json(base, head, runs, moved, rest), indent=1, ensure_ascii=False) + "\n")
    if runs.stopped:
        return 130
    if not moved:
        fail("no ratio is in every run: nothing could be compared")
    return int(any(one.verdict == "WORSE" for one in moved))


def _json(
    base: Side, head: Side, runs: Runs, moved: Sequence[Moved], rest: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    ratios = {
        one.name: {"base": one.base, "head": one.head, "interval": one.interval, "verdict": one.verdict.lower()}
        for one in moved
    }
    facts = {"base": base.name, "head": head.name, "processors": runs.processors, "pairs": len(runs.pairs)}
    return {**facts, "ratios": ratios, "not_compared": rest, "runs": {"base": runs.base, "head": runs.head}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="main", help="commit, branch or tag [main]")
    parser.add_argument("head", nargs="?", help="commit, branch or tag [the working tree]")
    parser.add_argument("--pairs", type=int, default=8, help="runs of each [8]")
    parser.add_argument("--level", type=float, default=0.99, help="confidence of the intervals, below 1 [0.99]")
    parser.add_argument("--only", metavar="PART,…", help="parts of the benchmark [all]")
    parser.add_argument("--model", metavar="NAME", help="benchmark this model [models of random weights]")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file for all values")
    given = parser.parse_args()
    if given.pairs < 1 or not 0 < given.level < 1:
        parser.error("--pairs is at least 1, --level between 0 and 1")
    model = given.model and (os.path.abspath(given.model) if os.path.exists(given.model) else given.model)
    asked = [word for name, value in (("--only", given.only), ("--model", model)) if value for word in (name, value)]
    sides = committed(given.base), working_tree() if given.head is None else committed(given.head)
    sys.exit(main(*sides, given.pairs, given.level, asked, given.out))
