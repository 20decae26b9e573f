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


# The table belongs to `plan`, which must outlive the result.
cdef inline ColumnPlan native_plan(plan):
    cdef ColumnPlan p
    cdef const int32_t[::1] table = plan.table
    p.H, p.W, p.Kw, p.Ph, p.columns, p.entries = plan.sizes
    cdef const int32_t *first = &table[0] if table.shape[0] else NULL
    p.column, p.kernel_column, p.rank = first, first + p.columns, first + 2 * p.columns
    p.ptr_first = first + 3 * p.columns
    p.ptr_last = p.ptr_first + p.entries
    return p
