"""The matrices behind the im2col and MEC convolutions."""
