"""What became of the runs below a directory: one table, one picture, one page."""
