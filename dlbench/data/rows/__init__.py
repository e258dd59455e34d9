"""Rows of a data set: the documents made of them, duplicates, shared sources, few-shot examples."""
