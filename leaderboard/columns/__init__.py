"""The tables of columns: everything that pages, downloads and terminal list about a row stands here once."""
