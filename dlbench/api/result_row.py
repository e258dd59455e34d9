"""A row of results: one record, what it wrote, and its method as it ran."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.errors import DlbenchError
from dlbench.leaderboard import formatting
from dlbench.records.checksum import read_samples
from dlbench.records.jsonl import read_lines
from dlbench.records.run_folder import RUN_FILE
from dlbench.records.schema import Asked, Record, Sample
from dlbench.system.paths import record_name

if TYPE_CHECKING:
    import pandas

    from dlbench.export.checkpoint import Exported
    from dlbench.method import Method


@dataclass(frozen=True)
class ResultRow:
    """One record: a method at one budget on one task. In a notebook it shows its figures."""

    record: Record
    label: str
    """The method's name on the board, with its variant."""
    run_dirs: tuple[Path, ...]
    """Folders of the runs that it was read with."""
    samples_file: Path | None
    """None where its samples are in none of the folders."""
    counted: frozenset[str]
    """The documents that the record counts: an earlier run of more leaves the samples of others in the same file."""

    @property
    def method(self) -> str:
        """The method's name."""
        return self.record.method.name

    @property
    def task(self) -> str:
        """The task's name."""
        return self.record.task.name

    @property
    def budget(self) -> float | None:
        """Target layer share; None where there was none."""
        return self.record.run.budget

    @property
    def figures(self) -> dict[str, str]:
        """The main figures as texts, by their headings."""
        quality, compute = self.record.quality, self.record.compute
        mean = kept = interval = layers = decode = None
        if quality is not None and compute is not None:  # they come together
            mean, kept, interval = quality.mean, quality.retained, quality.retained_ci95
            layers, decode = compute.layer_share, compute.flop_share_decode
        return {
            "task": self.task,
            "method": self.label,
            "budget": formatting.budget(self.budget),
            "quality": formatting.score(mean),
            "kept [95 %]": formatting.ratio(kept, interval),
            "layers": formatting.share(layers),
            "FLOPs, decoding": formatting.share(decode),
        }

    def samples(self) -> pandas.DataFrame:
        """What was written for each document, with its score, tokens and layers: a row per document.

        `layers` is the mean number of layers that a decode forward of the document ran.

        Raises:
            DlbenchError: no folder has the samples, as in a published record.
        """
        import pandas

        return pandas.DataFrame(
            {
                "id": sample.id,
                "output": sample.output,
                "score": sample.score,
                "tokens": sample.tokens.generated,
                "layers": sum(sample.layers) / len(sample.layers) if sample.layers else None,
            }
            for sample in self.stored_samples()
        ).convert_dtypes()

    def stored_samples(self) -> Iterator[Sample]:
        """The samples of the documents that the record counts.

        Raises:
            DlbenchError: no folder has them, as in a published record.
        """
        if self.samples_file is None:
            raise DlbenchError(f"{self.label}: its samples are in none of the folders")
        return (one for one in read_samples(self.samples_file) if one.id in self.counted)

    def configured(self) -> Method:
        """The method as it ran, with what was tuned and learnt, for `dlbench.evaluate`.

        Raises:
            DlbenchError: it is an oracle, its code or its fit is not there, or its code has changed since.
        """
        from dlbench.evaluation.settings import source_sha256
        from dlbench.fit import load_artifact
        from dlbench.method import Method, Router
        from dlbench.registry import methods as registry

        used = self.record.method
        given = self._given()
        kind = registry.load(given)
        if not issubclass(kind, Method):
            raise DlbenchError(f"{self.label} is an oracle, which chooses by references: it has no setting of its own")
        if source_sha256(given) != used.source_sha256:
            raise DlbenchError(f"{self.label}: the code of {given} has changed since it ran")
        for folder in self._fits():
            method, facts = load_artifact(folder, kind)
            if facts.task == self.task and facts.seed == self.record.run.seed and method.params() == dict(used.params):
                return method
        if issubclass(kind, Router):
            raise DlbenchError(f"{self.label}: its fitted weights are in none of the folders")
        return kind.from_params(dict(used.params))

    def export(
        self,
        to: str | Path,
        *,
        model: str | Path | None = None,
        data_dir: str | Path | None = None,
        documents: int = 8,
        note: Callable[[str], None] = lambda line: None,
    ) -> Exported:
        """Write the layers that a static row ran as an ordinary checkpoint, without the others.

        It is loaded again, and must write the texts that the method writes with prompts routed.

        Args:
            to: a new folder.
            model: the model that ran; None for the one that the run was given.
            data_dir: folder that a prefetched model is looked for in; None for that of the run.
            documents: of the row's documents, how many to continue with both.
            note: prints a line for people.

        Raises:
            DlbenchError: the row is no fixed set of whole layers, the model is not the one that ran, or the texts
                differ.
        """
        from dlbench.export.checkpoint import export

        source = str(model) if model is not None else self._source()
        places = [data_dir, *((spec.get("sources") or {}).get("data_dir") for spec in self._specs())]
        return export(
            self.record,
            self.configured(),
            source,
            self._prompts(documents),
            Path(to).expanduser(),
            data_dir=next((str(place) for place in places if place is not None), None),
            note=note,
        )

    def _source(self) -> str:
        """The model as the run was given it."""
        name = self.record.backbone.name
        for spec in self._specs():
            for given in spec.get("models", ()):
                if record_name(Path(given) if Path(given).exists() else given) == name:
                    return str(given)
        return name

    def _prompts(self, count: int) -> list[str]:
        """Prompts of some documents of the row's track; none where no folder has them."""
        for run_dir in self.run_dirs:
            if (path := run_dir / "documents.jsonl").is_file():
                own = (line.prompt for line in read_lines(path, Asked) if line.track == self.record.track)
                return list(islice(own, count))
        return []

    def _specs(self) -> Iterator[dict[str, Any]]:
        """What each run was asked for."""
        for run_dir in self.run_dirs:
            if (run_dir / RUN_FILE).is_file():
                yield json.loads((run_dir / RUN_FILE).read_text()).get("spec", {})

    def _given(self) -> str:
        """The method as the run was given it: its name, or the path of a plugin file."""
        from dlbench.registry import methods as registry

        for spec in self._specs():
            for given in spec.get("methods", ()):
                if registry.name_of(given) == self.method:
                    return str(given)
        return self.method

    def _fits(self) -> Iterator[Path]:
        """Folders of fits of the method: in the runs, and those that ship with the package."""
        from dlbench.fit import shipped_folders

        for place in [*(run_dir / "fits" for run_dir in self.run_dirs), *shipped_folders()]:
            for path in sorted(place.glob("*/fit.json")):
                if json.loads(path.read_text()).get("method") == self.method:
                    yield path.parent

    def __repr__(self) -> str:
        return f"ResultRow({', '.join(f'{name}: {text}' for name, text in self.figures.items())})"

    def _repr_html_(self) -> str:
        cells = (f"<tr><th>{escape(n)}</th><td>{escape(text)}</td></tr>" for n, text in self.figures.items())
        return f"<table>{''.join(cells)}</table>"
