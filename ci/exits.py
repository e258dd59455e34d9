#!/usr/bin/env python
"""Compare the exits of a trained model with those of its base: `ci/exits.py PLAIN TRAINED [OUT] [DOCUMENTS]`.

Runs static_exit on both models at every depth that the trained model's card lists, on test documents of the tasks that
it was trained on (200 each, prompts at full depth). Prints one Markdown table, and how much of the base model's quality
the trained one keeps at full depth. The run is kept in OUT; the same command continues it.
"""

import argparse
from pathlib import Path

from dlbench.models.catalog import MODELS
from dlbench.models.checkpoint.hashes import fingerprint
from dlbench.models.loading import embedded_folder
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record
from dlbench.running.config import RunSpec
from dlbench.running.runner import execute
from dlbench.train.card import Card, read_card


def cell(row: Record) -> str:
    """Mean of the primary metric, three digits."""
    return "–" if row.quality is None else f"{row.quality.mean:.3f}"


def print_tables(card: Card, records: list[Record], plain: str) -> None:
    """Print the exits of both models per task, and what is kept at full depth."""
    tasks = list(dict.fromkeys(r.task.name for r in records))
    metrics = {r.task.name: r.task.metric for r in records}
    by_exit: dict[tuple[int, str, str], Record] = {}
    for r in records:
        share = r.method.params.get("share", 1.0)
        assert isinstance(share, float | int)
        by_exit[round(share * card.depth), r.task.name, r.backbone.sha256] = r
    print("| exit after | " + " | ".join(f"{t} ({metrics[t]})" for t in tasks) + " |")
    print("| --- " * (1 + len(tasks)) + "|")
    for n in sorted({n for n, _, _ in by_exit}):
        pairs = [(by_exit[n, t, plain], by_exit[n, t, card.sha256]) for t in tasks]
        name = f"{n} layers" if n < card.depth else f"{n} (full)"
        print(f"| {name} | " + " | ".join(f"{cell(a)} → {cell(b)}" for a, b in pairs) + " |")
    for t in tasks:
        quality = by_exit[card.depth, t, card.sha256].quality
        if quality is not None and quality.retained is not None and quality.retained_ci95 is not None:
            low, high = quality.retained_ci95
            print(f"\n{t}: full depth keeps {quality.retained:.3f} [{low:.3f}, {high:.3f}] of the plain model's")


def main(plain: str, trained: Path, out: Path, documents: int) -> None:
    """Run both models and print the tables."""
    card = read_card(trained)
    exits = sorted({len(m.layers) for m in card.quality if len(m.layers) < card.depth})
    spec = RunSpec(
        models=(plain, str(trained)),
        tasks=tuple(s.task for s in card.sources),
        methods=("static_exit",),
        budgets=tuple(n / card.depth for n in exits),
        limit=documents,
        out=out,
        timing=False,
    )
    spec.check()
    execute(spec)
    sha256 = fingerprint(embedded_folder(plain) if plain in MODELS else Path(plain))
    records = list(read_lines(out / "records.jsonl", Record))
    print_tables(card, [r for r in records if r.backbone.sha256 in (sha256, card.sha256)], sha256)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plain", help="the base model: embedded name or folder")
    parser.add_argument("trained", type=Path, help="folder that `dlbench train` wrote")
    parser.add_argument("out", type=Path, nargs="?", default=Path("dlbench-exits"), help="run folder [dlbench-exits]")
    parser.add_argument("documents", type=int, nargs="?", default=200, help="test documents per task [200]")
    given = parser.parse_args()
    main(given.plain, given.trained, given.out, given.documents)
