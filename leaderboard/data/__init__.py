"""From run folders to rows, tracks and views."""
