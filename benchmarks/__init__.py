"""Benchmarks: they compare timings within one run. See README.md in this folder."""
