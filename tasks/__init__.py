"""Task suites: one folder per suite."""
