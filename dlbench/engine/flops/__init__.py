"""FLOPs: what one token costs, what ran, and what plugins compute."""
