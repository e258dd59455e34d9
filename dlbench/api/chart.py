"""A chart of results, for notebooks and files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlbench.errors import DlbenchError
from dlbench.leaderboard.charts import vega


@dataclass(frozen=True)
class Chart:
    """A chart, which a notebook shows as SVG, without a network.

    Attributes:
        spec: its Vega-Lite specification.
    """

    spec: Mapping[str, Any]

    def svg(self) -> str:
        """The chart as an SVG file, on white."""
        return vega.alone_svg(vega.draw(self.spec))

    def save(self, path: str | Path) -> Path:
        """Write the chart as a `.svg`, `.png` or `.json` file, and return its path.

        Raises:
            DlbenchError: the file has another suffix.
        """
        place = Path(path).expanduser()
        writers = {
            ".svg": lambda: self.svg().encode(),
            ".png": lambda: vega.png(self.spec),
            ".json": lambda: json.dumps(self.spec).encode(),
        }
        if place.suffix not in writers:
            raise DlbenchError(f"chart {place.name}: give a file that ends in .svg, .png or .json")
        place.write_bytes(writers[place.suffix]())
        return place

    def _repr_svg_(self) -> str:
        return self.svg()
