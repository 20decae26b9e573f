"""Winograd: transforms of weights, and the gradient of 3 x 3 weights.

transforms.h  the transforms along one dimension, and their adjoints
pack.h        weights as the convolution (network/winograd.h) reads them
gradient.h    the gradient of the weights: rounds of tasks
"""
