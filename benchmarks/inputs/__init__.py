"""What the benchmarks run: layers, networks, images and masks. Nothing here takes a time."""
