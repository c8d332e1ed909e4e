"""Speed and memory, measured beside the peer or the machine's ceiling: `tubelet bench`."""

WIDTH = 120
"""Columns of a printed table, also where a pipe or a file has none: figures are not cut short."""
