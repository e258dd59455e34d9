"""Train a backbone so that it can skip layers: recipes, data, loop, card. The command is `dlbench train`."""
