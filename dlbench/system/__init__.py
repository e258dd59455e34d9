"""Ground: files, processes, memory, versions."""
