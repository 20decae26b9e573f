"""The JPEG layer: 8x8 DCT, quantisers, and the layer in one pass."""
