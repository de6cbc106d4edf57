"""Benchmarks: scale and quality beside other libraries, and a cost plan; the latest results are under `results`."""
