# Declarations of native/columns.h for the two families that use it, and their conversion from Python.
from cython cimport floating
from libc.stdint cimport int32_t, int64_t, uint64_t

from jsc._kernels.cpc cimport CpcTask


cdef extern from "columns.h" namespace "jsc" nogil:
    cdef cppclass ColumnPlan:
        Py_ssize_t H, W, Kw, Ph, columns, entries
        const int32_t *slot
        const int32_t *column
        const int32_t *kernel_column
        const int32_t *rank
        const int32_t *ptr_first
        const int32_t *ptr_last
    cdef cppclass ColumnTask[T]:
        ColumnPlan plan
        const T *values
        const void *index
        const int64_t *value_offset
        const int64_t *index_offset
        const int32_t *value_start
        const int32_t *index_start
        int32_t *cursor
        T *tile
        uint64_t *mask
        Py_ssize_t row0, rows, band_rows, blocks
        void (*band)(int isa, int V, const CpcTask[T] *task) noexcept nogil
        CpcTask[T] sweep


cdef inline const int32_t *pointer(const int32_t[::1] a):
    return &a[0] if a.shape[0] else NULL


# The arrays belong to `plan`, which must outlive the result.
cdef inline ColumnPlan native_plan(plan):
    cdef ColumnPlan p
    p.H, p.W, p.Kw, p.Ph = plan.H, plan.W, plan.Kw, plan.Ph
    p.columns, p.entries = plan.columns, plan.entries
    p.slot, p.column, p.kernel_column = pointer(plan.slot), pointer(plan.column), pointer(plan.kernel_column)
    p.rank, p.ptr_first, p.ptr_last = pointer(plan.rank), pointer(plan.ptr_first), pointer(plan.ptr_last)
    return p


# What task `index` owns: `groups` (of `group_blocks` filter blocks) vary fastest, then strips, then images.
cdef inline void place_task(ColumnTask[floating] *task, Py_ssize_t index, Py_ssize_t strips, Py_ssize_t strip_rows,
                            Py_ssize_t groups, Py_ssize_t group_blocks, Py_ssize_t blocks, Py_ssize_t block,
                            Py_ssize_t Oh) noexcept nogil:
    cdef Py_ssize_t group = index % groups, strip = index // groups % strips, n = index // groups // strips
    cdef Py_ssize_t first = group * group_blocks, C = task.sweep.C, sets = (C + 63) // 64
    task.row0 = strip * strip_rows
    task.rows = min(strip_rows, Oh - task.row0)
    task.blocks = min(group_blocks, blocks - first)
    task.value_offset += n * C
    task.index_offset += n * C
    task.value_start += n * C * (task.plan.columns + 1)
    task.index_start += n * C * (task.plan.columns + 1)
    task.sweep.weight += first * sets * task.sweep.Kh * 64 * task.sweep.Kw * block
    if task.sweep.bias != NULL:
        task.sweep.bias += first * block
    task.sweep.out += n * Oh * task.sweep.Ow * task.sweep.K + first * block
    task.sweep.filters = min(task.blocks * block, task.sweep.K - first * block)
