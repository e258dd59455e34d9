"""What a method's compute goes to: how often each layer ran, how deep tokens went, and the parts of its FLOPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlbench.leaderboard.data.entries import BoardEntry
from dlbench.records.schema import Flops, Usage

PARTS = (
    ("layers", "layers"),
    ("attention", "attention over the context"),
    ("heads", "output and exit heads"),
    ("kv", "keys and values of skipped tokens"),
    ("router", "router"),
)


@dataclass(frozen=True, slots=True)
class Heat:
    """How often each layer ran, per entry.

    Attributes:
        columns: entries, as (budget in words, share per layer from the lowest).
    """

    layers: int
    columns: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True)
class Depths:
    """How many layers the tokens of an entry ran: shares of the forwards, from no layer to all."""

    name: str
    shares: tuple[float, ...]
    mean: float

    @property
    def top(self) -> float:
        """The largest share."""
        return max(self.shares)


@dataclass(frozen=True, slots=True)
class Spent:
    """Decoding FLOPs of an entry by part, as shares of full depth's."""

    name: str
    parts: tuple[float, ...]

    @property
    def total(self) -> float:
        """Their sum: the flop share of decoding."""
        return sum(self.parts)


def heat(entries: Sequence[BoardEntry], usage: Mapping[str, Usage]) -> Heat | None:
    """Return how often each layer ran at each budget; None where no samples say so."""
    columns = []
    for entry in entries:
        used = usage.get(entry.first.record.key)
        if used is not None and used.layers:
            columns.append((_budget(entry), used.layers))
    return Heat(len(columns[0][1]), tuple(columns)) if columns and len({len(c[1]) for c in columns}) == 1 else None


def depths(entries: Sequence[BoardEntry], usage: Mapping[str, Usage]) -> list[Depths]:
    """Return the histograms of executed depth, one per entry that has samples."""
    histograms = []
    for entry in entries:
        used = usage.get(entry.first.record.key)
        if used is None or not sum(used.depths):
            continue
        total = sum(used.depths)
        mean = sum(depth * count for depth, count in enumerate(used.depths)) / total
        histograms.append(Depths(_budget(entry), tuple(count / total for count in used.depths), mean))
    return histograms


def spent(entries: Sequence[BoardEntry]) -> list[Spent]:
    """Return the parts of each entry's FLOPs; their proportions are those of the sums over all documents."""
    bars = []
    for entry in entries:
        compute = entry.first.record.compute
        if compute is None or not compute.flops.total:
            continue
        scale = compute.flop_share_decode / compute.flops.total
        bars.append(Spent(_budget(entry), tuple(scale * amount for amount in _amounts(compute.flops))))
    return bars


def _amounts(flops: Flops) -> list[int]:
    return [getattr(flops, part) for part, _ in PARTS]


def _budget(entry: BoardEntry) -> str:
    return "no budget" if entry.budget is None else f"{100 * entry.budget:.4g} %"
