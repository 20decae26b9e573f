"""Training with and without a JPEG layer: what `accuracy` and `robustness` have in common."""
