"""CPS family: compressed pattern sets of planes, and back.

Layouts are those of native/columns.h and native/cps.h. IN and Ptr are given as bytes; `plan` (see
jsc.ops.columns) says whether they are 16- or 32-bit. Planes are shared out among threads.
"""

from cython cimport floating
from cython.parallel cimport prange, threadid
from libc.stdint cimport int32_t, int64_t, uint64_t

from jsc._kernels.columns cimport ColumnPlan, native_plan

cdef extern from "cps.h" namespace "jsc" nogil:
    void cps_encode_plane[T](int isa, int wide, const ColumnPlan *plan, const T *x, const T *end, T *scratch, T *DA,
                             void *IN, int32_t *start, int32_t *word)
    void cps_encode_pixels[T](int isa, int wide, const ColumnPlan *plan, const T *x, const T *end, Py_ssize_t C,
                              Py_ssize_t channels, T *scratch, T *DA, void *IN, int32_t *start, int32_t *word,
                              Py_ssize_t value_step, Py_ssize_t index_step)
    void cps_rows(int isa, int wide, const ColumnPlan *plan, const int32_t *word, const void *IN, uint64_t *rows)
    int cps_decode[T](int wide, const ColumnPlan *plan, const void *ptr, Py_ssize_t ptr0, const T *DA, const void *IN,
                      Py_ssize_t in0, int64_t values, int64_t words, int32_t *start, int32_t *word, T *x)


def encode_planes(
    const floating[:, :, ::1] x,      # IN   (P, H, W)
    plan,
    int32_t[:, ::1] start,            # OUT  (P, columns + 1) first value of every column
    int32_t[:, ::1] word,             # OUT  (P, columns + 1) first word of every column
    floating[:, ::1] DA,              # OUT  (P, room) values at the front of each row
    unsigned char[:, ::1] IN,         # OUT  (P, room) indices likewise
    uint64_t[:, ::1] rows,            # OUT  (P, columns * words) row masks read back from IN, or (0, 0): not wanted
    floating[:, ::1] scratch,         # SCRATCH (num_threads, W * H, both rounded up to multiples of 16)
    int isa,
    int num_threads,
):
    """The streams of planar maps, each in a region of its own."""
    cdef ColumnPlan p = native_plan(plan)
    cdef int wide = plan.wide
    cdef Py_ssize_t n, plane = p.H * p.W, step = p.columns + 1, room = DA.shape[1], index_room = IN.shape[1]
    cdef Py_ssize_t columns = scratch.shape[1], masks = rows.shape[1]
    if x.shape[0] * plane == 0:
        start[:, :] = 0
        word[:, :] = 0
        return
    cdef const floating *source = &x[0, 0, 0]
    cdef const floating *end = source + x.shape[0] * plane
    cdef int32_t *starts = &start[0, 0]
    cdef int32_t *words = &word[0, 0]
    cdef floating *values = &DA[0, 0]
    cdef floating *transposed = &scratch[0, 0]
    cdef unsigned char *index = &IN[0, 0]
    cdef uint64_t *target = &rows[0, 0] if masks else NULL
    for n in prange(x.shape[0], nogil=True, num_threads=num_threads, schedule="static"):
        cps_encode_plane(isa, wide, &p, source + n * plane, end, transposed + threadid() * columns, values + n * room,
                         <void *>(index + n * index_room), starts + n * step, words + n * step)
        if masks:
            cps_rows(isa, wide, &p, words + n * step, <const void *>(index + n * index_room), target + n * masks)


def encode_pixels(
    const floating[:, :, :, ::1] x,   # IN   (N, H, W, C)
    plan,
    int32_t[:, ::1] start,            # OUT  as in encode_planes, for the N * C planes
    int32_t[:, ::1] word,             # OUT  (P, columns + 1) first word of every column
    floating[:, ::1] DA,              # OUT
    unsigned char[:, ::1] IN,         # OUT
    uint64_t[:, ::1] rows,            # OUT
    floating[:, ::1] scratch,         # SCRATCH (num_threads, 16 * H, rounded up to multiples of 16)
    int isa,
    int num_threads,
):
    """The streams of channels-last maps."""
    cdef ColumnPlan p = native_plan(plan)
    cdef int wide = plan.wide
    cdef Py_ssize_t i, c, q, plane, masks = rows.shape[1], N = x.shape[0], C = x.shape[3], step = p.columns + 1
    cdef Py_ssize_t room = DA.shape[1], index_room = IN.shape[1], columns = scratch.shape[1]
    cdef Py_ssize_t words_room = index_room // (4 if wide else 2)
    cdef Py_ssize_t lanes = (16 << isa) // sizeof(floating), groups = (C + lanes - 1) // lanes
    if N * C * p.H * p.W == 0:
        start[:, :] = 0
        word[:, :] = 0
        return
    cdef const floating *source = &x[0, 0, 0, 0]
    cdef const floating *end = source + N * C * p.H * p.W
    cdef int32_t *starts = &start[0, 0]
    cdef int32_t *words = &word[0, 0]
    cdef floating *values = &DA[0, 0]
    cdef floating *transposed = &scratch[0, 0]
    cdef unsigned char *index = &IN[0, 0]
    cdef uint64_t *target = &rows[0, 0] if masks else NULL
    for i in prange(N * groups, nogil=True, num_threads=num_threads, schedule="static"):
        c = i % groups * lanes
        plane = i // groups * C + c
        cps_encode_pixels(isa, wide, &p, source + i // groups * p.H * p.W * C + c, end, C, min(lanes, C - c),
                          transposed + threadid() * columns, values + plane * room,
                          <void *>(index + plane * index_room), starts + plane * step, words + plane * step,
                          room, words_room)
        if masks:
            for q in range(plane, plane + min(lanes, C - c)):
                cps_rows(isa, wide, &p, words + q * step, <const void *>(index + q * index_room), target + q * masks)


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
    if x.shape[0] == 0 or DA.shape[0] == 0:
        return
    cdef floating *target = &x[0, 0, 0] if plane else NULL
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
