"""One function for each ATen operator that has a native form, by kind.

    walk          `lower`, and what runs in torch
    entries       what an operator's argument is while the graph is walked
    convolving    convolution, linear, batch-norm
    elementwise   arithmetic and activations
    pooling       pools, means, resizing, normalisations, softmax
    shapes        views, slices, concatenation, padding: mostly nothing to do

A new operator is one function and one line in its table.
"""
