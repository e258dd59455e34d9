"""What the statistics say of a view, a method or a pair of rows."""
