"""Backbones: loading them, the table of families, exit heads, quantisation, batch sizes."""
