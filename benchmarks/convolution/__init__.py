"""Benchmarks of one convolution at a time: times, bytes, and where the time goes."""
