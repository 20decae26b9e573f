"""Compiled kernels, by family. Nothing here imports torch; calls get addresses.

    module       what its kernels do                                           header
    ----------   -----------------------------------------------------------   --------------------
    cpu          which instruction sets and OpenMP this build can use          simd/isa.h
    fingerprint  whether a tensor still holds what it held                     fingerprint.h
    contrast     local contrast of planes, and its gradient                    contrast.h
    amx          dense convolution on AMX tiles                                amx/convolution.h
    columns      CPO and CPS streams, back, and convolution over them          columns/convolution.h
    forward      occupancy masks of a map, convolution over its non-zeros      cpc/forward.h
    gradient     gradients over the non-zeros of a map only                    cpc/gradient.h
    winograd     3 x 3 weights transformed, and their gradient                  winograd/gradient.h
    dct          orthonormal 8x8 DCT of stacks of planes                       jpeg/dct.h
    jpeg         the whole JPEG layer in one pass, and its gradients           jpeg/jpeg.h
    quant        soft, windowed and hard quantiser, and gradients              jpeg/quant.h
    lowering     matrices behind im2col and MEC                                lowering/lowering.h
    program      whole networks: instructions, and the walk over them          network/instruction.h

Contract of every kernel: outputs and scratch come in; `isa` (0 baseline, 1 AVX2, 2 AVX-512) and
`num_threads` come in as numbers; each output element is written by one thread in a fixed order of
additions, so that the bits do not depend on the number of threads.

A convolution's kernel is an object: what does not change from call to call is a C++ struct, made
once from a dict of its fields by name; a call has addresses only. On the C++ side, without Python
and OpenMP, it is rounds() of tasks(round), run() one by one by whichever thread, with
scratch_bytes() of scratch.
"""
