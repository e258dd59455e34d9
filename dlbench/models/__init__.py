"""Backbones: names and families, loading, exit heads, quantisation, batch sizes."""
