"""Networks trained with and without a JPEG layer: `accuracy` and `robustness` share all this."""
