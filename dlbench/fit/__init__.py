"""Fit a method on the fit split of a task: what it learns, then its knob to the budget.

Seventy per cent of the fit documents are learnt from, thirty tuned on, parted by the hash of their ids; the test split
is never seen. What comes out is an artifact: the parameters as JSON and the weights as safetensors, named by a content
key, so that it is made once.
"""

from dlbench.fit.artifacts import Facts, find_artifact, load_artifact, save_artifact
from dlbench.fit.probe import FitProbe, Readings, halves
from dlbench.fit.tune import tune

__all__ = ["Facts", "FitProbe", "Readings", "find_artifact", "halves", "load_artifact", "save_artifact", "tune"]
