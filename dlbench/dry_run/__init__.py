"""`dlbench run --dry-run`: the plan of a run, what it reuses, and what it will need."""
