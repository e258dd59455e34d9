"""Paired statistics over documents; numpy and scipy only. `docs/statistics.md` says what is used where, and why.

- `intervals`: `mean_interval`, `paired_difference`, `contrast`, `ratio_interval`, `retained`, each an `Interval`.
- `hypothesis_tests`: `permutation_p`, `sign_test_p`, `corrected`, `outcomes`, `minimum_detectable`.
- `table`: `Table`, all rows of a track resampled together: pairs, ranks, tie groups.
- `frontier`: `Point`, `Curve` (band, area, points at any cost), `matched_difference`.
- `reach`: `compute_at`, `gap_closed`, `pareto_probability`.
- `ranks`: `Rank`, `rank_intervals`, `tie_groups`, `letters`.
- `unseen`: `effective_mass`, `unseen_share`: how much documents that were not sampled may change a mean.
- `resample`: `Resample`, the shared bootstrap weights.
"""

from dlbench.stats.bands import Band
from dlbench.stats.frontier import Area, Curve, Point, matched_difference
from dlbench.stats.hypothesis_tests import (
    Outcomes,
    corrected,
    minimum_detectable,
    outcomes,
    permutation_p,
    sign_test_p,
)
from dlbench.stats.intervals import (
    FEWEST_DOCUMENTS,
    LEVEL,
    Interval,
    contrast,
    mean_interval,
    paired_difference,
    ratio_interval,
    retained,
)
from dlbench.stats.ranks import Rank, letters, rank_intervals, tie_groups
from dlbench.stats.reach import ComputeAt, compute_at, gap_closed, pareto_probability
from dlbench.stats.resample import RESAMPLES, Resample
from dlbench.stats.table import MOST_PAIRED, Pairs, Table

__all__ = [
    "FEWEST_DOCUMENTS",
    "LEVEL",
    "MOST_PAIRED",
    "RESAMPLES",
    "Area",
    "Band",
    "ComputeAt",
    "Curve",
    "Interval",
    "Outcomes",
    "Pairs",
    "Point",
    "Rank",
    "Resample",
    "Table",
    "compute_at",
    "contrast",
    "corrected",
    "gap_closed",
    "letters",
    "matched_difference",
    "mean_interval",
    "minimum_detectable",
    "outcomes",
    "paired_difference",
    "pareto_probability",
    "permutation_p",
    "rank_intervals",
    "ratio_interval",
    "retained",
    "sign_test_p",
    "tie_groups",
]
