"""Scores of outputs and answers: the registry of metrics, a task's scorer, words, and the hash of scoring code."""
