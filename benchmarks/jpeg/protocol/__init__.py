"""The robustness claim of the JPEG-DL paper, in its own protocol and under stronger attacks."""
