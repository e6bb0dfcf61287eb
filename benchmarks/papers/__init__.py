"""The papers' claims as tables: `python -m benchmarks.papers --help`."""
