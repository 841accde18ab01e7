"""Benchmarks: `make bench` prints a table; docs/performance.md holds one with its date."""
