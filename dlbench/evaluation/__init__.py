"""From samples to records: content keys, generation, scores, oracle rows, times."""
