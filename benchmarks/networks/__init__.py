"""Benchmarks of whole networks: compiled inference, and one step of training."""
