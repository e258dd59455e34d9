"""dlbench from Python: `run`, `evaluate`, `load` and `Results`, which `dlbench` itself offers by these names."""
