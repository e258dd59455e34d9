"""Ground: what people see while they wait, and errors about names that nobody knows."""
