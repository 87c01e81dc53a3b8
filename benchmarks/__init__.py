"""Timings of the framework's parts: `python -m benchmarks.NAME` prints a table and writes JSON."""
