"""A model's files: which they are, reading them, and saying what is wrong with them."""
