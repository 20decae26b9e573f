"""Networks trained with and without a JPEG layer: `accuracy` and `robustness_small`."""
