"""A report on all runs below a directory: a table, a picture of curves, a page."""
