#!/usr/bin/env python
"""Validate submissions and report on them in Markdown: `ci/submission.py DIR... [--out FILE]`.

Nothing of a submission is executed. The report has each fault with its code and remedy, or, of a valid submission, the
rows with their differences from full depth and the controls. The exit code is 1 if any submission has a fault.
"""

import argparse
import sys
from pathlib import Path

from dlbench.data.task_options import Sources
from dlbench.submission.report import markdown
from dlbench.submission.validation import validate


def main(folders: list[Path], out: Path | None, data_dir: str | None = None) -> int:
    """Validate, write the report, and return the exit code."""
    lines: list[str] = []
    results = []
    for folder in folders:
        result = validate(folder, sources=Sources(data_dir=data_dir))
        results.append(result.passed)
        lines += [*markdown(folder, result), ""]
    text = "\n".join(lines) or "No submission.\n"
    if out is None:
        print(text)
    else:
        with out.open("a", encoding="utf-8") as handle:
            handle.write(text + "\n")
    return 0 if all(results) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", help="submission folders")
    parser.add_argument("--out", type=Path, help="file to append the report to [print it]")
    parser.add_argument("--data-dir", help="folder of local mirrors, tried before the hub")
    given = parser.parse_args()
    sys.exit(main(given.folders, given.out, given.data_dir))
