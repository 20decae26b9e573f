"""Benchmarks of jsc against torch and other packages: `python -m benchmarks` lists them."""
