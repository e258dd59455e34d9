"""What is read off the rows of a data set: duplicates, shared sources, few-shot examples."""
