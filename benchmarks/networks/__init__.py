"""Benchmarks of whole networks: inference with fused layers, and one step of training."""
