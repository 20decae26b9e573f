"""Compiled kernel families. Buffers in, buffers out: nothing here imports torch or allocates.

    family   what its kernels do                                         header
    ------   ---------------------------------------------------------   -------------
    bf16x3   dense float32 convolution on AMX tiles                      native/bf16x3.h
    columns  compact streams, and convolution over the streams of both   native/columns.h
    cpc      occupancy masks of a map, convolution over its non-zeros    native/cpc.h
    cpc_grad gradients that visit the non-zeros of a map only            native/cpc_grad.h
    cpo      CPO streams of planes, back, and convolution over them      native/cpo.h
    cps      CPS streams of planes, back, and convolution over them      native/cps.h
    cpu      which instruction sets and OpenMP this build can use        simd/isa.h
    dct      orthonormal 8x8 DCT of stacks of planes                     native/dct8.h
    fingerprint whether a tensor still holds what it held               native/fingerprint.h
    jpeg     the whole JPEG layer in one pass, and its gradients         native/jpeg.h
    lower    matrices behind im2col and MEC                              native/lower.h
    program  the instructions of a compiled network, and its call        network/instruction.h
    quant    soft, windowed, hard, sampled quantiser, and gradients      native/quant.h

Contract of every kernel: outputs and scratch come in as buffers; `isa` (0 baseline, 1 AVX2,
2 AVX-512) and `num_threads` come in as numbers; each output element is written by one thread in a
fixed order of additions, so that the bits do not depend on the number of threads.
"""
