"""Runs in experiment trackers: `--track`."""
