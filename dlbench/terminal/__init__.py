"""What people see in a terminal: progress, printing, and errors about unknown names."""
