"""Fit a method on the fit split of a task: train or calibrate it, then tune its knob to the budget.

70 % of the fit documents are learnt from and 30 % tuned on, split by the hash of their ids; the test split is never
used. Of either part a fit takes as many documents as its bound in tokens allows. The result is an artifact, parameters
as JSON and weights as safetensors, under a content key, so that each fit is made once.
"""

from dlbench.fit.artifacts import Facts, find_artifact, load_artifact, save_artifact, shipped_folders
from dlbench.fit.bound import bounded
from dlbench.fit.probe import FitProbe
from dlbench.fit.references import Readings, References, halves
from dlbench.fit.tune import tune

__all__ = [
    "Facts",
    "FitProbe",
    "Readings",
    "References",
    "bounded",
    "find_artifact",
    "halves",
    "load_artifact",
    "save_artifact",
    "shipped_folders",
    "tune",
]
