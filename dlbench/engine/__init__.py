"""Execute dynamic depth for real: gates around the layers of a stock model, an own cache, a decode loop, a meter."""

from dlbench.engine.engine import Engine
from dlbench.engine.prefill import Wave
from dlbench.engine.requests import Generation, Request

__all__ = ["Engine", "Generation", "Request", "Wave"]
