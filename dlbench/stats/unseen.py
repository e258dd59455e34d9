"""How much documents that are not in the sample may change a mean.

Where most documents differ a little and few collapse, a sample without any of the few looks far too certain of its
mean, and the spread of a sample with two of them rests on two documents. Hence two quantities:

- the *effective mass* of deviations d is (Σ|d|)² ÷ Σd²: n where all deviate equally, m where m do and the rest tie,
  small where few deviations dominate (the participation number of Bell & Dean, Discussions of the Faraday Society 50,
  1970);
- if none of n sampled documents is of some kind, up to z² ÷ (n + z²) of all documents may be: Wilson's bound, which is
  also the score interval of binary scores that all tie.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit

from dlbench.stats.resample import FloatArray, cluster_totals


def effective_mass(deviations: FloatArray) -> FloatArray:
    """Return the number of equal deviations with the same spread as these, [samples]; 0 where nothing deviates.

    Args:
        deviations: from the typical value, [samples, units].
    """
    largest = np.abs(deviations).max(axis=1, initial=0.0)
    size = np.abs(deviations) / np.maximum(largest, 1e-300)[:, None]  # so that squares neither overflow nor underflow
    return np.asarray(size.sum(axis=1) ** 2 / np.maximum((size**2).sum(axis=1), 1.0), dtype=np.float64)


def unseen_share(units: int, level: float) -> float:
    """Return the greatest share of all documents (or sources) of a kind that none of `units` sampled ones is."""
    square = float(ndtri((1 + level) / 2)) ** 2
    return square / (units + square)


def level_of(codes: npt.NDArray[np.intp] | None, level: float) -> float:
    """Return the level at which intervals over sources take the normal's quantile: higher where few sources dominate.

    Sources count by their documents, so forty sources of which one has half of all documents tell hardly more than
    (Σ size)² ÷ Σ size² equal ones (Carter, Schnepel & Steigerwald, Review of Economics and Statistics 99, 2017). The
    quantile goes from the normal's, where sources are equal, to Student's t with that few degrees of freedom, where one
    source has all documents.
    """
    if codes is None:
        return level
    sizes = np.bincount(codes).astype(np.float64)
    effective = float(sizes.sum() ** 2 / (sizes**2).sum())
    if sizes.size < 2 or effective >= sizes.size * (1 - 1e-9):
        return level
    top = (1 + level) / 2
    normal, student = float(ndtri(top)), float(stdtrit(max(effective, 2.5), top))
    uneven = 1 - (effective - 1) / (sizes.size - 1)
    reach = min(normal + uneven * (student - normal), 6.0)  # beyond that the normal's tail is lost in rounding
    return 2 * float(ndtr(reach)) - 1


def unit_deviations(rows: FloatArray, codes: npt.NDArray[np.intp] | None) -> tuple[FloatArray, FloatArray]:
    """Return each unit's deviation from the typical unit, [samples, units], and the typical value, [samples].

    Units are documents or clusters; the deviation of a cluster is divided by the mean cluster size.
    """
    if codes is None:
        typical = np.median(rows, axis=1)
        return rows - typical[:, None], typical
    sizes = np.bincount(codes)
    totals = cluster_totals(rows, codes)
    typical = np.median(totals / sizes, axis=1)
    return (totals - typical[:, None] * sizes) / sizes.mean(), typical


def unseen_distance(units: FloatArray, off: FloatArray, room: FloatArray, level: float) -> FloatArray:
    """Return how far units that were not seen may move a mean to one side, [samples].

    Args:
        units: deviations of documents, or of sources, [samples, units].
        off: deviations of documents, [samples, documents].
        room: how far a document may deviate to that side, [samples].
        level: two-sided coverage.
    """
    reach = np.zeros(len(units))
    for deviations, room_here in ((off, room), (units, room * _relative_spread(units, off))):
        far = np.maximum(room_here - np.abs(deviations).max(axis=1), 0.0)
        reach = np.maximum(reach, unseen_share(deviations.shape[1], level) * far)
    return reach


def unit_room(units: FloatArray, off: FloatArray, room: FloatArray) -> FloatArray:
    """Return how far a source may deviate where a document may by `room`: at least as far as any that was seen."""
    seen: FloatArray = np.abs(units).max(axis=1)
    return np.asarray(np.maximum(seen, room * _relative_spread(units, off)), dtype=np.float64)


def _relative_spread(units: FloatArray, off: FloatArray) -> FloatArray:
    """Return the root mean square deviation of units ÷ that of documents, at most 1, [samples]; 1 where all tie."""
    spread, documents = (np.sqrt((x**2).mean(axis=1)) for x in (units, off))
    ratio = np.where(documents > 0, np.minimum(1.0, spread / np.maximum(documents, 1e-300)), 1.0)
    return np.asarray(ratio, dtype=np.float64)
