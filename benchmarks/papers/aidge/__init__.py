"""SAT here and in Aidge, CEA's framework, side by side: `python -m benchmarks.papers.aidge --help`."""
