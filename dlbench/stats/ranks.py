"""Ranks with their intervals, and groups of rows that cannot be told apart."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit

from dlbench.stats.resample import FloatArray


@dataclass(frozen=True, slots=True)
class Rank:
    """A row's rank by its mean (1 is best, ties share the best one), and the bounds of its interval."""

    rank: int
    low: int
    high: int


def rank_intervals(
    means: npt.ArrayLike,
    draws: FloatArray,
    level: float = 0.95,
    *,
    units: int | None = None,
    apart: npt.NDArray[np.bool_] | None = None,
) -> list[Rank]:
    """Return every row's rank with its interval: above it are rows that are surely better, below it surely worse ones.

    The intervals hold jointly: all differences between two rows get simultaneous bounds, with one critical value for
    the whole table, the quantile of the largest studentised deviation in each draw (Mogstad, Romano, Shaikh & Wilhelm,
    Review of Economic Studies 91, 2024). Quantiles of resampled ranks would be simpler, but are too narrow where rows
    are nearly equal.

    Args:
        means: mean score per row; higher is better.
        draws: resampled means, rows drawn together, [rows, resamples].
        level: the probability that all intervals contain their rows' true ranks.
        units: documents (or sources) that were drawn from: the fewer, the larger the critical value, as Student's t is
            beside the normal; no correction where not given.
        apart: whether the interval of a difference excludes zero, [rows, rows]; rows whose does not are never surely
            better or worse, whatever the draws say.
    """
    values = np.asarray(means, dtype=np.float64)
    deviations = draws - values[:, None]
    scale = max(float(np.abs(values).max()), 1e-300) * 1e-12
    errors = np.zeros((len(values), len(values)))
    largest = np.zeros(draws.shape[1])
    for row in range(len(values) - 1):
        off = deviations[row + 1 :] - deviations[row]
        error = np.sqrt(np.einsum("rd,rd->r", off, off) / off.shape[1])
        errors[row, row + 1 :] = errors[row + 1 :, row] = error
        known = error > scale
        np.maximum(largest, np.abs(off[known] / error[known, None]).max(axis=0, initial=0.0), out=largest)
    critical = float(np.quantile(largest, level))
    if units is not None and units > 1 and critical > 0:
        reached = min(critical, 6.0)  # beyond that the normal's tail is lost in rounding
        critical *= float(stdtrit(units - 1, ndtr(reached))) / reached * (units / (units - 1)) ** 0.5
    # Rows without any spread between them differ by the same amount, or not at all, on every sampled document.
    reach = np.where(errors > scale, critical * errors, scale)
    difference = values[None] - values[:, None]
    better, worse = difference > reach, difference < -reach
    if apart is not None:
        better, worse = better & apart, worse & apart
    places = 1 + (difference > scale).sum(axis=1)
    low, high = 1 + better.sum(axis=1), len(values) - worse.sum(axis=1)
    return [Rank(int(rank), int(best), int(worst)) for rank, best, worst in zip(places, low, high, strict=True)]


def tie_groups(means: npt.ArrayLike, different: npt.NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """Return groups of rows that cannot be told apart: two rows share a group if and only if they are not different.

    "Not different" is not transitive, so a row may be in several groups: a compact letter display (Piepho, Journal of
    Computational and Graphical Statistics 13, 2004), made by growing groups from the best row down.

    Args:
        means: mean score per row; higher is better.
        different: whether two rows differ, symmetric, [rows, rows].

    Returns:
        Row numbers, best first within a group and groups by their best row.
    """
    order = [int(row) for row in np.argsort(-np.asarray(means, dtype=np.float64), kind="stable")]
    groups: list[tuple[int, ...]] = []
    shared = np.zeros_like(different)
    for place, first in enumerate(order):
        for second in order[place:]:
            if shared[first, second] or (different[first, second] and first != second):
                continue
            group = [first] if second == first else [first, second]
            for row in order:
                if row not in group and not different[row, group].any():
                    group.append(row)
            group.sort(key=order.index)
            shared[np.ix_(group, group)] = True
            groups.append(tuple(group))
    return sorted(groups, key=lambda group: [order.index(row) for row in group])


def letters(groups: list[tuple[int, ...]], rows: int) -> list[str]:
    """Return the letters of each row's groups, "ab": rows that share a letter cannot be told apart.

    After z come a', b' and so on.
    """
    marks = [ascii_lowercase[place % 26] + "'" * (place // 26) for place in range(len(groups))]
    return ["".join(mark for mark, group in zip(marks, groups, strict=True) if row in group) for row in range(rows)]
