"""Execute dynamic depth for real: gates around the layers of a stock model, an own cache, a decode loop, a meter."""

from dlbench.engine.decode import Engine, Generation, Request, Wave

__all__ = ["Engine", "Generation", "Request", "Wave"]
