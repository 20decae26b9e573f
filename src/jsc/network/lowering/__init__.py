"""One function for each ATen operator that has a native form, by kind.

    walk          `lower`: one operator after another
    torch_calls   what runs in torch
    folding       what is made of the model's state alone
    entries       what an operator's argument is while the graph is walked
    convolving    convolution, linear, batch-norm
    elementwise   arithmetic and activations
    phases        transposed convolution, pixel shuffle
    patterns      what is written out in several operators
    pooling       pools, means, resizing, normalisations, softmax
    shapes        views, slices, concatenation, padding: mostly nothing to do

A new operator is one function and one line in its table.
"""
