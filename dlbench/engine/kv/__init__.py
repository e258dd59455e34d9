"""Keys and values: storage, the cache of a batch, policies for skipped tokens."""
