"""Files, paths, processes, memory, and versions of libraries."""
