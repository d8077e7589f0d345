"""Benchmarks: images with known pose, the methods compared on them, and the tables of the results."""
