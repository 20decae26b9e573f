# The fields of the instructions, as in their headers: a dict with these names makes each.

from libc.stdint cimport int64_t, uint64_t

from jsc._kernels.amx.amx cimport AmxFields

cdef extern from "network/instruction.h" namespace "jsc::network" nogil:
    cdef struct Map:
        int64_t region, offset
        int64_t N, H, W, C
        int64_t image, row, pixel, channel
        int64_t bf16

cdef extern from "network/activation.h" namespace "jsc::network" nogil:
    cdef struct Activation:
        int64_t kind
        double a, b
    cdef struct Epilogue:
        uint64_t shift
        int64_t has_residual
        Map residual
        Activation act

cdef extern from "network/convolution.h" namespace "jsc::network" nogil:
    cdef struct ConvolutionFields:
        Map x, out
        int64_t Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw, groups
        int64_t vectors, chunk, band_rows, task_blocks, tiles_first
        uint64_t weight
        Epilogue epilogue

cdef extern from "network/direct_bf16.h" namespace "jsc::network" nogil:
    cdef struct DirectBf16Fields:
        ConvolutionFields direct

cdef extern from "network/pool.h" namespace "jsc::network" nogil:
    cdef struct PoolFields:
        Map x, out
        int64_t Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw
        int64_t average, count_padding, divisor
        Activation act

cdef extern from "network/adaptive_pool.h" namespace "jsc::network" nogil:
    cdef struct AdaptivePoolFields:
        Map x, out
        int64_t average
        Activation act

cdef extern from "network/elementwise.h" namespace "jsc::network" nogil:
    cdef struct ElementwiseFields:
        Map x, other, out
        int64_t op, operand
        uint64_t scale, shift
        double scalar
        Activation act

cdef extern from "network/linear.h" namespace "jsc::network" nogil:
    cdef struct LinearFields:
        Map x, out
        int64_t inputs, bf16
        uint64_t weight, shift
        Activation act

cdef extern from "network/normalise.h" namespace "jsc::network" nogil:
    cdef struct NormaliseFields:
        Map x, out
        int64_t kind, size
        double alpha, beta, k, eps
        uint64_t weight, shift

cdef extern from "network/group_norm.h" namespace "jsc::network" nogil:
    cdef struct GroupNormFields:
        Map x, out
        int64_t groups, pixels, workspace
        double eps
        uint64_t weight, shift
        Activation act

cdef extern from "network/copy.h" namespace "jsc::network" nogil:
    cdef struct CopyFields:
        Map x, out
        int64_t top, left, border
        double fill
        uint64_t order

cdef extern from "network/resize.h" namespace "jsc::network" nogil:
    cdef struct ResizeFields:
        Map x, out
        int64_t bilinear, align_corners
        double scale_h, scale_w

cdef extern from "network/depthwise.h" namespace "jsc::network" nogil:
    cdef struct DepthwiseFields:
        Map x, out
        int64_t Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw
        uint64_t weight
        Epilogue epilogue

cdef extern from "network/grouped.h" namespace "jsc::network" nogil:
    cdef struct GroupedFields:
        Map x, out
        int64_t Kh, T, S, Ph, Pw, Dh, groups, width, band_rows
        uint64_t weight
        Epilogue epilogue

cdef extern from "network/winograd.h" namespace "jsc::network" nogil:
    cdef struct WinogradFields:
        Map x, out
        int64_t Ph, Pw, mv, mh, vectors, tiles
        uint64_t weight, plain
        Epilogue epilogue

cdef extern from "network/sparse.h" namespace "jsc::network" nogil:
    cdef struct SparseFields:
        Map x, out
        int64_t masks
        int64_t Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw
        int64_t vectors, block, columns, band_rows
        uint64_t weight
        Epilogue epilogue

cdef extern from "network/tiles.h" namespace "jsc::network" nogil:
    cdef struct TilesFields:
        AmxFields amx
        int64_t common
        ConvolutionFields direct
