"""From the name of a task to its documents, and from outputs to scores."""
