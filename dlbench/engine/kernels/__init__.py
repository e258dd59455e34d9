"""Fused decode steps, proved equal to the stock layers, and CUDA graphs of them."""
