"""From the name of a task to its documents."""
