"""Run folders, JSON Lines files, and the schema of records."""
