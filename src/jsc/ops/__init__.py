"""Operators: the one place that registers with `torch.library` and calls kernels.

Each module of this package does one kernel family, in a fixed order: the CPU implementation
(allocates, then calls the kernel), the registration with its shape function, the gradient.
Arguments have been checked above, in `jsc.functional`.
"""
