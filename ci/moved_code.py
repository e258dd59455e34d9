#!/usr/bin/env python
"""Let an edited file count as before in content keys: `ci/moved_code.py FILE…` rewrites dlbench/registry/moved_code.py.

Content keys hold hashes of code, so an edit of a file under dlbench/fit, dlbench/method, methods or tasks gives new
keys, and shipped fits are no longer found. Use this only if the edit changes nothing that the file did before, such as
a new name, a new docstring or a further function. If it does change something, run ci/shipped-fits instead.

A file that has a row already keeps the hash that it counts by; one without a row counts as it stood in the last commit.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlbench.registry import source_file
from dlbench.registry.moved_code import MOVED, Pair

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "dlbench" / "registry" / "moved_code.py"
BEGIN, END = "MOVED: dict[Pair, list[Pair]] = {\n", "}\n"


def label_of(path: str) -> str:
    """Return the name by which a file counts: its path in an installed dlbench."""
    known = [label for label, _ in MOVED]
    whole = path if path.startswith("dlbench/") else f"dlbench/{path}"
    alone = f"{whole.removesuffix('.py')}/{Path(whole).name}"  # a module that counts by itself, not with its package
    return alone if alone in known else whole


def committed_sha256(path: str) -> str:
    """Return the hash of a file as it stands in the last commit."""
    done = subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{path}: neither in the table nor in the last commit, so there is nothing that it could count as")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "committed.py"
        copy.write_bytes(done.stdout)
        return source_file.read(copy).sha256


def renewed(paths: Sequence[str]) -> dict[Pair, list[Pair]]:
    """Return the table with rows for the files as they stand now."""
    table = dict(MOVED)
    for path in paths:
        label, now = label_of(path), source_file.read(ROOT / path).sha256
        rows = [row for row in table if row[0] == label]
        counts = table.pop(rows[0]) if rows else [(label, committed_sha256(path))]
        if counts != [(label, now)]:
            table[label, now] = counts
    return dict(sorted(table.items()))


def written(table: Mapping[Pair, Sequence[Pair]]) -> str:
    """Return the table as Python, formatted."""
    lines = []
    for (label, now), counts in table.items():
        lines += ["    (", f'        "{label}",', f'        "{now}",', "    ): [" if counts else "    ): [],"]
        for number, (old, sha256) in enumerate(counts, start=1):
            comma = "," if len(counts) > 1 or number < len(counts) else ""
            lines += ["        (", f'            "{old}",', f'            "{sha256}",', f"        ){comma}"]
        lines += ["    ],"] if counts else []
    return "".join(f"{line}\n" for line in lines)


def main(paths: Sequence[str]) -> None:
    """Rewrite the rows of the files."""
    text = TABLE.read_text(encoding="utf-8")
    start = text.index(BEGIN) + len(BEGIN)
    end = text.index(f"\n{END}", start - 1) + 1
    TABLE.write_text(text[:start] + written(renewed(paths)) + text[end:], encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE", help="path from the root, such as tasks/metrics.py")
    main(parser.parse_args().files)
