"""Results as a folder that `datasets.load_dataset` loads, and the hub shows: Parquet files beside a card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench import __version__
from dlbench.api.result_row import ResultRow
from dlbench.errors import DlbenchError

if TYPE_CHECKING:
    import pandas
    import pyarrow

ROWS, SAMPLES = "records", "samples"
"""Names of the configurations."""
AT_ONCE = 1000
"""Samples that are held in memory."""


def write_dataset(frame: pandas.DataFrame, rows: Sequence[ResultRow], headlines: Sequence[str], folder: Path) -> Path:
    """Write results as a data set.

    Args:
        frame: a row per record, as `Results.frame` has it.
        rows: the rows, whose samples are written as far as they are there.
        headlines: sentences for the card.
        folder: a new or an empty one.

    Raises:
        DlbenchError: the folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DlbenchError(f"{folder} is there already: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / f"{ROWS}.parquet", index=False)
    kept = [row for row in rows if row.samples_file is not None]
    if kept:
        _write_samples(kept, folder / f"{SAMPLES}.parquet")
    (folder / "README.md").write_text(_card(rows, headlines, samples=bool(kept)), encoding="utf-8")
    return folder


def _write_samples(rows: Sequence[ResultRow], path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = _schema(pyarrow)
    with parquet.ParquetWriter(path, schema) as writer:
        waiting: list[dict[str, Any]] = []
        for line in _samples(rows):
            waiting.append(line)
            if len(waiting) == AT_ONCE:
                writer.write_table(pyarrow.Table.from_pylist(waiting, schema=schema))
                waiting = []
        writer.write_table(pyarrow.Table.from_pylist(waiting, schema=schema))


def _schema(arrow: Any) -> pyarrow.Schema:
    text, real, whole = arrow.string(), arrow.float64(), arrow.int64()
    fields = {
        **{"key": text, "task": text, "method": text, "budget": real, "seed": whole, "backbone": text},
        **{"id": text, "output": text, "score": real, "scores": text},
        **{"prompt_tokens": whole, "tokens": whole, "layer_share": real, "layers": arrow.list_(real)},
    }
    return arrow.schema(list(fields.items()))


def _samples(rows: Sequence[ResultRow]) -> Iterator[dict[str, Any]]:
    for row in rows:
        record = row.record
        for sample in row.stored_samples():
            layers = sample.layers
            yield {
                "key": record.key,
                "task": row.task,
                "method": row.label,
                "budget": row.budget,
                "seed": record.run.seed,
                "backbone": record.backbone.name,
                "id": sample.id,
                "output": sample.output,
                "score": sample.score,
                "scores": json.dumps(dict(sample.scores), sort_keys=True),
                "prompt_tokens": sample.tokens.prompt,
                "tokens": sample.tokens.generated,
                "layer_share": sum(layers) / len(layers) / record.backbone.layers if layers else None,
                "layers": list(layers),
            }


def _card(rows: Sequence[ResultRow], headlines: Sequence[str], *, samples: bool) -> str:
    """Return the card: what the hub reads, then what people do."""
    models = sorted({row.record.backbone.name for row in rows})
    tasks = sorted({row.task for row in rows})
    names = [ROWS, *([SAMPLES] if samples else [])]
    configs = [{"config_name": name, "data_files": f"{name}.parquet"} for name in names]
    configs[0]["default"] = True  # type: ignore[assignment]
    head = {"pretty_name": f"dlbench on {', '.join(models)}", "tags": ["dlbench", "dynamic-depth"], "configs": configs}
    lines = [
        "---",
        json.dumps(head, indent=1, ensure_ascii=False),  # JSON is YAML
        "---",
        "",
        f"# dlbench on {', '.join(models)}",
        "",
        f"{len(rows)} records of dlbench {__version__} on {', '.join(tasks)}: what methods of dynamic depth keep of "
        "full depth's quality, and what they cost.",
        "",
        f"- `{ROWS}`: a row per record. `retained` is the share of full depth's quality, with the ends of its 95 % "
        "interval; `layer_share` and the `flop_share_` columns are shares of full depth's compute.",
    ]
    if samples:
        lines.append(
            f"- `{SAMPLES}`: a row per record (`key`) and document (`id`): the text, its score, and how many layers "
            "each decode step ran. Prompts and references are those of the tasks, and are not here."
        )
    lines += ["", *(f"- {line}" for line in headlines), ""] if headlines else [""]
    return "\n".join(lines)
