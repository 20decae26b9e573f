"""Benchmarks of the JPEG layer: its speed, its bits, and (in `training`) its accuracy."""
