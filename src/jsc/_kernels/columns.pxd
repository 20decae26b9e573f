# Declarations of native/columns.h for the families that use it, and the plan's conversion from Python.
from libc.stdint cimport int32_t, int64_t, uint64_t

from jsc._kernels.cpc cimport CpcTask


cdef extern from "columns.h" namespace "jsc" nogil:
    cdef cppclass ColumnPlan:
        Py_ssize_t H, W, Kw, Ph, columns, entries
        const int32_t *column
        const int32_t *kernel_column
        const int32_t *rank
        const int32_t *ptr_first
        const int32_t *ptr_last
        Py_ssize_t words()
    cdef cppclass ColumnTask[T]:
        ColumnPlan plan
        const T *values
        const uint64_t *rows
        const int32_t *start
        Py_ssize_t value_step
        T *tile
        uint64_t *mask
        Py_ssize_t tile_rows, row0, out_rows, band_rows, sweep_rows, blocks
        void (*band)(int isa, int V, const CpcTask[T] *task) noexcept nogil
        CpcTask[T] sweep
    void column_strip[T](int isa, int V, const ColumnTask[T] *task)


cdef inline const int32_t *pointer(const int32_t[::1] a):
    return &a[0] if a.shape[0] else NULL


# The arrays belong to `plan`, which must outlive the result.
cdef inline ColumnPlan native_plan(plan):
    cdef ColumnPlan p
    p.H, p.W, p.Kw, p.Ph = plan.H, plan.W, plan.Kw, plan.Ph
    p.columns, p.entries = plan.columns, plan.entries
    p.column, p.kernel_column, p.rank = pointer(plan.column), pointer(plan.kernel_column), pointer(plan.rank)
    p.ptr_first, p.ptr_last = pointer(plan.ptr_first), pointer(plan.ptr_last)
    return p
