"""Prove on a few tokens that the engine runs a model as the model itself does, where the table has no row for it."""

from dlbench.engine.proof.at_load import prove

__all__ = ["prove"]
