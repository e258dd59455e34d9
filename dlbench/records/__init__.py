"""What is written and read: run folders, JSON Lines, the schema of records."""
