"""Train a backbone for a way of skipping layers: recipes, data, loop, card. `dlbench train` is the way in."""
