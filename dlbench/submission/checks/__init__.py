"""Checks of a submission whose files are intact: rows, samples, figures, and the official protocol."""
