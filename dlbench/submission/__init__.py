"""Submissions: packing a run with all that it rests on, checking it without trust, and decoding some of it again."""
