"""Data that a page loads when it needs it: as scripts, since a page opened from a folder may load nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dlbench.leaderboard import formatting
from dlbench.leaderboard.analysis.score_matrix import Compared
from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.charts import frontier
from dlbench.leaderboard.charts.style import COLOURS, Mark
from dlbench.leaderboard.data.entries import relative
from dlbench.leaderboard.data.views import BoardView
from dlbench.leaderboard.pages.sample_pages import SampleIndex


def script(name: str, value: Any) -> str:
    """Return a script that stores a value under a name, for the page's own scripts."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # U+2028 and U+2029 are fine in JSON and, since 2019, in scripts; older engines take them for line ends.
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f"dlbench.data[{json.dumps(name)}]={text};\n"


def chart_shard(view: BoardView, spec: Mapping[str, Any], marks: Mapping[str, Mark], standings: Standings) -> str:
    """Return what the interactive chart of a view needs: its specification, and the data on every axis."""
    base: dict[str, dict[str, Any]] = {}
    charts = {}
    for axis in view.axes:
        data = frontier.datasets(view, marks, axis, standings)
        for point in data["points"]:
            base.setdefault(point["id"], {key: value for key, value in point.items() if key not in ("x", "text")})
        charts[axis.key] = {
            "x": {point["id"]: point["x"] for point in data["points"]},
            "front": data["front"],
            "labels": data["labels"],
            "frame": data["frame"],
            "mark": data["mark"],
            "better": data["better"],
            "budgets": data["budgets"],
        }
    axes = [{"key": axis.key, "title": axis.title, "of": axis.of} for axis in view.axes]
    bare = {key: value for key, value in spec.items() if key != "datasets"}
    return script(
        f"chart:{view.slug}",
        {
            "spec": bare,
            "axes": axes,
            "metric": None if relative(view.entries) else view.metric,
            "base": list(base.values()),
            "charts": charts,
            "colours": COLOURS,
        },
    )


CELLS = 40_000
"""Most comparisons in one file, which a click loads."""
MOST_DOCUMENTS = 3000
"""Documents on which rows can be compared one by one."""


def pair_shards(view: BoardView, compared: Compared) -> Iterator[tuple[str, str]]:
    """Yield the files of all pairwise tests of a view: differences in points of full's quality, corrected p values."""
    entries = list(compared.place)
    if len(entries) < 2:
        return
    pairs = compared.pairs
    percent, p = 100.0, 1e4  # as whole numbers, which are shorter: hundredths of a point, p times 10,000
    arrays = {
        "d": np.rint(100 * percent * pairs.estimate),
        "lo": np.rint(100 * percent * pairs.low),
        "hi": np.rint(100 * percent * pairs.high),
        "p": np.rint(p * pairs.corrected),
        "w": pairs.won,
        "l": pairs.won.T,
        "v": np.where(pairs.different, np.sign(pairs.estimate), 0),
    }
    whole = {name: values.astype(np.int64) for name, values in arrays.items()}
    rows = [{name: values[row].tolist() for name, values in whole.items()} for row in range(len(entries))]
    block = max(1, CELLS // len(entries))
    blocks = [rows[start : start + block] for start in range(0, len(rows), block)]
    index: dict[str, Any] = {"ids": entries, "block": block, "blocks": len(blocks)}
    if len(blocks) == 1:
        index["data"] = rows
    else:
        for number, part in enumerate(blocks):
            yield f"data/{view.slug}.pairs-{number}.js", script(f"pairs:{view.slug}:{number}", part)
    yield f"data/{view.slug}.pairs.js", script(f"pairs:{view.slug}", index)


def document_shard(view: BoardView, compared: Compared, samples: Mapping[str, SampleIndex]) -> str:
    """Return the rank of every row on every document; equal scores have equal ranks.

    Args:
        view: the view.
        compared: its rows with their scores.
        samples: entry → the pages of its samples.
    """
    from scipy.stats import rankdata  # a second of loading, for those pages alone

    ranks = rankdata(compared.scores[:, :MOST_DOCUMENTS], method="dense", axis=0).astype(np.int64)
    documents = compared.documents[:MOST_DOCUMENTS]
    pages = {}
    for entry in compared.place:
        index = samples.get(entry)
        if index is not None:
            numbers = [index.page_of.get(document, -1) for document in documents]
            pages[entry] = {"file": index.file, "shard": numbers if any(numbers) else None}
    return script(
        f"docs:{view.slug}",
        {
            "documents": documents,
            "anchors": [f"d-{formatting.slug(one)}" for one in documents],
            "ranks": {entry: row.tolist() for entry, row in zip(compared.place, ranks, strict=True)},
            "pages": pages,
        },
    )
