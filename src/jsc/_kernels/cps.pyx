"""CPS family: compressed pattern sets of planes, back, and convolution over them.

Layouts are those of native/columns.h and native/cps.h. IN and Ptr are given as bytes; `plan` (see
jsc.ops.columns) says whether they are 16- or 32-bit. Planes and strips of output rows are shared out
among threads; each output has one owner.
"""

from cython cimport floating
from cython.parallel cimport prange, threadid
from libc.stdint cimport int32_t, int64_t, uint64_t

from jsc._kernels.cpc cimport band_double, band_float
from jsc._kernels.columns cimport ColumnPlan, ColumnTask, native_plan, place_task

cdef extern from "cps.h" namespace "jsc" nogil:
    void cps_count[T](int isa, const ColumnPlan *plan, const T *x, int32_t *start, int32_t *word, int64_t *values,
                      int64_t *words)
    void cps_fill[T](int isa, int wide, const ColumnPlan *plan, const T *x, int32_t *start, int32_t *word, T *DA,
                     void *IN, Py_ssize_t in0, void *ptr, Py_ssize_t ptr0)
    int cps_decode[T](int wide, const ColumnPlan *plan, const void *ptr, Py_ssize_t ptr0, const T *DA, const void *IN,
                      Py_ssize_t in0, int64_t values, int64_t words, int32_t *start, int32_t *word, T *x)
    void cps_strip[T](int isa, int V, int wide, const ColumnTask[T] *task)


def count(
    const floating[:, :, ::1] x,      # IN   (P, H, W)
    plan,
    int32_t[:, ::1] start,            # OUT  (P, columns + 1), zeroed: cursors of values for `fill`
    int32_t[:, ::1] word,             # OUT  (P, columns + 1), zeroed: cursors of words
    int64_t[::1] values,              # OUT  (P,) non-zeros
    int64_t[::1] words,               # OUT  (P,) non-empty sets
    int isa,
    int num_threads,
):
    """Values and words of every plane and column."""
    cdef ColumnPlan p = native_plan(plan)
    cdef Py_ssize_t n, plane = p.H * p.W, step = p.columns + 1
    if x.shape[0] * plane == 0:
        return
    cdef const floating *source = &x[0, 0, 0]
    cdef int32_t *starts = &start[0, 0]
    cdef int32_t *word_starts = &word[0, 0]
    cdef int64_t *value_counts = &values[0]
    cdef int64_t *word_counts = &words[0]
    for n in prange(x.shape[0], nogil=True, num_threads=num_threads, schedule="static"):
        cps_count(isa, &p, source + n * plane, starts + n * step, word_starts + n * step, value_counts + n, word_counts + n)


def fill(
    const floating[:, :, ::1] x,      # IN   (P, H, W)
    plan,
    int32_t[:, ::1] start,            # IN   cursors from `count`; OUT first value of every column
    int32_t[:, ::1] word,             # IN   cursors from `count`; OUT first word of every column
    const int64_t[::1] offset,        # IN   (P + 1,) where each plane's values begin
    const int64_t[::1] word_offset,   # IN   (P + 1,) where each plane's words begin
    const int64_t[::1] row,           # IN   (P,) rows of ptr, not used for empty planes
    floating[::1] DA,                 # OUT  values
    unsigned char[::1] IN,            # OUT  words
    unsigned char[::1] ptr,           # OUT  (rows * entries) or empty: not wanted
    int isa,
    int num_threads,
):
    """The streams of every plane."""
    cdef ColumnPlan p = native_plan(plan)
    cdef int wide = plan.wide
    cdef Py_ssize_t n, plane = p.H * p.W, step = p.columns + 1
    if x.shape[0] * plane == 0 or DA.shape[0] == 0:
        return
    cdef const floating *source = &x[0, 0, 0]
    cdef int32_t *starts = &start[0, 0]
    cdef int32_t *word_starts = &word[0, 0]
    cdef floating *values = &DA[0]
    cdef void *index = &IN[0]
    cdef void *pointers = &ptr[0] if ptr.shape[0] else NULL
    cdef const int64_t *offsets = &offset[0]
    cdef const int64_t *word_offsets = &word_offset[0]
    cdef const int64_t *rows = &row[0]
    for n in prange(x.shape[0], nogil=True, num_threads=num_threads, schedule="static"):
        if offsets[n + 1] > offsets[n]:
            cps_fill(isa, wide, &p, source + n * plane, starts + n * step, word_starts + n * step, values + offsets[n],
                     index, word_offsets[n], pointers, rows[n] * p.entries)


def decode(
    const floating[::1] DA,           # IN
    const unsigned char[::1] IN,      # IN
    const unsigned char[::1] ptr,     # IN   (rows * entries)
    const int64_t[::1] offset,        # IN   (P + 1,) ascending from 0 to the length of DA
    const int64_t[::1] word_offset,   # IN   (P + 1,) ascending from 0 to the length of IN
    const int64_t[::1] row,           # IN   (P,)
    plan,
    int32_t[:, ::1] start,            # SCRATCH (P, columns + 1)
    int32_t[:, ::1] word,             # SCRATCH (P, columns + 1)
    floating[:, :, ::1] x,            # OUT  (P, H, W), zeroed
    unsigned char[::1] valid,         # OUT  (P,), 0 where the arrays contradict the shape
    int num_threads,
):
    """The planes of streams that nobody has checked yet."""
    cdef ColumnPlan p = native_plan(plan)
    cdef int wide = plan.wide
    cdef Py_ssize_t n, plane = p.H * p.W, step = p.columns + 1
    if x.shape[0] * plane == 0 or DA.shape[0] == 0:
        return
    cdef floating *target = &x[0, 0, 0]
    cdef int32_t *starts = &start[0, 0]
    cdef int32_t *word_starts = &word[0, 0]
    cdef const floating *values = &DA[0]
    cdef const void *index = &IN[0] if IN.shape[0] else NULL
    cdef const void *pointers = &ptr[0] if ptr.shape[0] else NULL
    cdef const int64_t *offsets = &offset[0]
    cdef const int64_t *word_offsets = &word_offset[0]
    cdef const int64_t *rows = &row[0]
    cdef unsigned char *status = &valid[0]
    for n in prange(x.shape[0], nogil=True, num_threads=num_threads, schedule="static"):
        if offsets[n + 1] > offsets[n]:
            status[n] = cps_decode(wide, &p, pointers, rows[n] * p.entries, values + offsets[n], index, word_offsets[n],
                                   offsets[n + 1] - offsets[n], word_offsets[n + 1] - word_offsets[n], starts + n * step,
                                   word_starts + n * step, target + n * plane)


def convolve(
    const floating[::1] DA,                     # IN   values of the batch's N * C planes, 3 more at the end
    const unsigned char[::1] IN,                # IN   their words
    const int64_t[::1] offset,                  # IN   (N * C + 1,)
    const int64_t[::1] word_offset,             # IN   (N * C + 1,)
    const int32_t[:, ::1] start,                # IN   (N * C, columns + 1) from `fill`
    const int32_t[:, ::1] word,                 # IN   (N * C, columns + 1) from `fill`
    plan,
    const floating[:, :, :, :, :, ::1] weight,  # IN   (K blocks, sets, Kh, 64, Kw, V lanes)
    const floating[::1] bias,                   # IN   (K,) or (0,) for none
    int32_t[:, ::1] cursor,                     # SCRATCH (num_threads, 2 * columns * C)
    floating[:, ::1] tile,                      # SCRATCH (num_threads, tile rows * W * C)
    uint64_t[:, ::1] mask,                      # SCRATCH (num_threads, sets * tile rows * W)
    floating[:, ::1] partial,                   # SCRATCH (num_threads, band rows * tile columns * V lanes)
    floating[:, :, :, ::1] out,                 # OUT  (N, Oh, Ow, K)
    g,                                          # ConvGeometry
    int V, Py_ssize_t strip_rows, Py_ssize_t band_rows, Py_ssize_t group_blocks,
    int isa,
    int num_threads,
):
    """Convolution of compressed planes: a task is a strip of output rows for some blocks of filters."""
    cdef ColumnTask[floating] task, mine
    cdef int wide = plan.wide
    cdef Py_ssize_t i, Oh = g.Oh, blocks = weight.shape[0], block = weight.shape[5]
    cdef Py_ssize_t strips = (Oh + strip_rows - 1) // strip_rows, groups = (blocks + group_blocks - 1) // group_blocks
    task.plan = native_plan(plan)
    task.values, task.index = &DA[0], &IN[0]
    task.value_offset, task.index_offset = &offset[0], &word_offset[0]
    task.value_start, task.index_start = &start[0, 0], &word[0, 0]
    task.band_rows = band_rows
    if floating is float:
        task.band = band_float
    else:
        task.band = band_double
    cdef const floating *first_bias = &bias[0] if bias.shape[0] else NULL
    task.sweep.weight, task.sweep.bias, task.sweep.out = &weight[0, 0, 0, 0, 0, 0], first_bias, &out[0, 0, 0, 0]
    task.sweep.C, task.sweep.H, task.sweep.W, task.sweep.K, task.sweep.Ow = g.C, g.H, g.W, g.K, g.Ow
    task.sweep.Kh, task.sweep.Kw, task.sweep.Sh, task.sweep.Sw = g.Kh, g.Kw, g.Sh, g.Sw
    task.sweep.Ph, task.sweep.Pw, task.sweep.Dh, task.sweep.Dw = g.Ph, g.Pw, g.Dh, g.Dw
    cdef int32_t *first_cursor = &cursor[0, 0]
    cdef floating *first_tile = &tile[0, 0]
    cdef uint64_t *first_mask = &mask[0, 0]
    cdef floating *first_partial = &partial[0, 0]
    cdef Py_ssize_t cursors = cursor.shape[1], tiles = tile.shape[1], masks = mask.shape[1], partials = partial.shape[1]
    for i in prange(out.shape[0] * strips * groups, nogil=True, num_threads=num_threads, schedule="dynamic"):
        mine = task
        mine.cursor = first_cursor + threadid() * cursors
        mine.tile = first_tile + threadid() * tiles
        mine.mask = first_mask + threadid() * masks
        mine.sweep.tile = first_partial + threadid() * partials
        place_task(&mine, i, strips, strip_rows, groups, group_blocks, blocks, block, Oh)
        cps_strip(isa, V, wide, &mine)
