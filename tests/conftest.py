"""Stands here so that pytest puts this folder on the path: `tiny_models` and its like are imported from all of it."""
