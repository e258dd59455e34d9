#!/usr/bin/env python
"""Run the tests of what changed and the fastest others: `ci/quick_tests.py [--within SECONDS] [--list] [PYTEST…]`.

Test files are taken in this order, as long as the time allows by ci/test_seconds.json, and what is left out is named:

1. test files that changed since the merge base with main, or that are new, and those that use a changed helper;
2. the other tests of the rooms that changed, the fastest first: `dlbench/engine/kv/masks.py` → `tests/engine/`;
3. all other test files, the fastest first.

Tests marked slow are left out. `ci/quick_tests.py --record build/tests.xml` writes the seconds of every test file anew
from what the last `ci/check` measured.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
SECONDS = ROOT / "ci" / "test_seconds.json"
UNKNOWN = 20.0
"""Assumed seconds of a test file that was never measured."""
START = 36.0
"""Seconds beside the tests: pytest's workers import torch and transformers, collect, and slow each other down."""
TESTS_OF = {
    "dlbench/method/": ("tests/methods/",),
    "leaderboard/": ("tests/leaderboard/",),
    "methods/": ("tests/methods/",),
    "tasks/": ("tests/nano/", "tests/data/"),
    "dlbench/cli.py": ("tests/commands/",),
    "dlbench/errors.py": ("tests/commands/",),
    "ci/": ("tests/ci/",),
    ".ci/": ("tests/ci/",),
    ".github/": ("tests/ci/",),
    "docs/": ("tests/ci/", "tests/leaderboard/test_documented.py"),
    "README.md": ("tests/ci/",),
    "CONTRIBUTING.md": ("tests/ci/",),
    "pyproject.toml": ("tests/test_",),
}
"""What changed → where its tests are, where that is not `dlbench/ROOM/` → `tests/ROOM/`."""


def changed_files() -> list[str]:
    """Return the paths that differ from the merge base with main, and those that git does not know yet.

    Where there is no branch main, such as in a shallow clone, the last commit stands for it.
    """

    def git(*arguments: str) -> list[str]:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    for branch in ("main", "origin/main"):
        with suppress(subprocess.CalledProcessError):
            (base,) = git("merge-base", "HEAD", branch)
            return [*git("diff", "--name-only", base), *git("ls-files", "--others", "--exclude-standard")]
    return git("ls-files", "--modified", "--others", "--exclude-standard")


def tests_of(path: str) -> tuple[str, ...]:
    """Return how the paths of the test files begin that belong to a changed file."""
    for start, places in TESTS_OF.items():
        if path.startswith(start):
            return places
    room = re.match(r"dlbench/(\w+)/", path)
    return (f"tests/{room[1]}/",) if room else ()


def rank(changed: Iterable[str], sources: Mapping[str, str]) -> dict[str, int]:
    """Return for each test file (path → text) how near it is to what changed: 0 is itself, 1 its room, 2 neither."""
    changed = set(changed)
    starts = tuple(start for path in changed for start in tests_of(path))
    helpers = [Path(path).stem for path in changed if path.startswith("tests/helpers/")]
    uses = re.compile(rf"^(?:from|import) ({'|'.join(helpers)})\b", re.MULTILINE) if helpers else None
    return {
        path: 0 if path in changed or (uses and uses.search(text)) else 1 if starts and path.startswith(starts) else 2
        for path, text in sources.items()
    }


def choose(ranks: Mapping[str, int], seconds: Mapping[str, float], most: float, cores: int) -> tuple[list[str], float]:
    """Return the test files to run, in order, and the seconds that they should take on so many cores.

    A file runs in one process, so it alone must fit into the time as well.
    """
    taken, total = [], 0.0
    for path in sorted(ranks, key=lambda one: (ranks[one], seconds.get(one, UNKNOWN), one)):
        cost = seconds.get(path, UNKNOWN)
        if max(cost, (total + cost) / cores) <= most:
            taken.append(path)
            total += cost
    return taken, max([total / cores, *(seconds.get(path, UNKNOWN) for path in taken)])


def record(report: Path) -> None:
    """Write the seconds of every test file from pytest's JUnit report; files that it does not name keep theirs."""
    measured: dict[str, float] = defaultdict(float)
    for case in ElementTree.parse(report).iter("testcase"):
        parts = case.attrib["classname"].split(".")
        paths = ("/".join(parts[:length]) + ".py" for length in range(len(parts), 0, -1))
        if path := next((path for path in paths if (ROOT / path).is_file()), None):
            measured[path] += float(case.attrib["time"])
    known = {**json.loads(SECONDS.read_text(encoding="utf-8")), **measured}
    kept = {path: round(value, 1) for path, value in sorted(known.items()) if (ROOT / path).is_file()}
    SECONDS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(f"{SECONDS.relative_to(ROOT)}: {len(measured)} test files measured, {sum(kept.values()):.0f} s in all")


def main(within: float, more: Sequence[str], show: bool) -> int:
    """Choose, say what is left out, and run pytest."""
    paths = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    ranks = rank(changed_files(), {path: (ROOT / path).read_text(encoding="utf-8") for path in paths})
    seconds = json.loads(SECONDS.read_text(encoding="utf-8"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    taken, cost = choose(ranks, seconds, max(0.0, within - START), cores)
    print(f"{len(taken)} of {len(paths)} test files, about {START + cost:.0f} s on {cores} cores", flush=True)
    near = [path for path in paths if ranks[path] < 2 and path not in taken]
    if near:
        print(f"left out of the rooms that changed, for time ({len(near)}): {' '.join(near)}", flush=True)
    if show or not taken:
        print("\n".join(taken))
        return 0
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-n", str(cores), "--dist", "loadfile"]
    return subprocess.run([*command, *more, *taken], cwd=ROOT).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--within", type=float, default=75, help="seconds that the tests may take [75]")
    parser.add_argument("--list", action="store_true", help="name the test files, run nothing")
    parser.add_argument("--record", type=Path, metavar="XML", help="write ci/test_seconds.json from a JUnit report")
    given, rest = parser.parse_known_args()
    if given.record:
        record(given.record)
    else:
        sys.exit(main(given.within, rest, given.list))
