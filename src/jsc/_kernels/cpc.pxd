# The task of a sweep, and the sweep itself for other families: compiled once, in this module.
from libc.stdint cimport uint64_t


cdef extern from "cpc_task.h" namespace "jsc" nogil:
    cdef cppclass CpcNorm[T]:
        const T *mean
        const T *variance
        const T *weight
        const T *bias
        T eps

    cdef cppclass CpcTask[T]:
        const T *x
        const uint64_t *mask
        const T *weight
        const T *bias
        T *tile
        T *out
        Py_ssize_t pixel_step, row_step, set_step
        Py_ssize_t C, H, W, K, Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw, Ow
        Py_ssize_t row0, rows, filters
        CpcNorm[T] norm
        const T *residual
        bint relu
        uint64_t *out_mask
        Py_ssize_t out_plane
        int first_bit
        bint last


cdef void band_float(int isa, int V, const CpcTask[float] *task) noexcept nogil
cdef void band_double(int isa, int V, const CpcTask[double] *task) noexcept nogil
