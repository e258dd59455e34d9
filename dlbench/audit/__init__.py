"""The contract of a method, checked on tiny models: `dlbench check`, and the pytest plugin `dlbench.testing`."""
