"""Audits: a method decodes in a process of its own, and its routes are replayed in one that never loaded it."""
