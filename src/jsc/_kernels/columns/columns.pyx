"""CPO and CPS family: streams of planes, back, and the convolution over them.

Layouts are those of columns/columns.h, cpo.h and cps.h, rounds and tasks those of columns/convolution.h. IN
and Ptr are given as bytes; `plan` (jsc.ops.column_order.ColumnPlan) says of which format they are, and
whether they are 16- or 32-bit.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy

from jsc._kernels.cpc.forward cimport CpcTask, band_double, band_float

cdef extern from "columns/convolution.h" namespace "jsc" nogil:
    cdef cppclass ColumnPlan:
        Py_ssize_t H, W, Kw, Ph, columns, entries
        const int32_t *column
        const int32_t *kernel_column
        const int32_t *rank
        const int32_t *ptr_first
        const int32_t *ptr_last
        Py_ssize_t value_room()
        Py_ssize_t index_room(bint sets)
        Py_ssize_t transposed()

    cdef cppclass ColumnFormat:
        bint sets, wide
        Py_ssize_t index_bytes()

    cdef cppclass ColumnRegions[T]:
        T *values
        char *indices
        int32_t *start
        int32_t *word
        uint64_t *rows
        Py_ssize_t value_step, index_step

    cdef cppclass ColumnSource[T]:
        const T *x
        Py_ssize_t planes, C
        bint channels_last
        Py_ssize_t parts(int isa)

    void column_encode[T](
        int isa, ColumnFormat format, const ColumnPlan *plan, const ColumnSource[T] &source, Py_ssize_t index,
        T *scratch, const ColumnRegions[T] &to,
    )
    bint column_decode[T](
        ColumnFormat format, const ColumnPlan *plan, const void *ptr, Py_ssize_t ptr0, const T *DA,
        const void *IN, Py_ssize_t in0, int64_t values, int64_t words, int32_t *start, int32_t *word, T *x,
    )

    cdef struct ColumnFields:
        Py_ssize_t N, C, H, W, K, Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw, Oh, Ow
        Py_ssize_t vectors, block
        Py_ssize_t strip_rows, group_blocks, band_rows, sweep_rows
        Py_ssize_t tile_rows, pixel_step, row_step, row_sums
        size_t weight, bias

    cdef cppclass ColumnConvolution[T]:
        ColumnConvolution(
            const ColumnFields &, const ColumnPlan &, const ColumnFormat &,
            void (*sweep)(int isa, int V, const CpcTask[T] *task) noexcept nogil,
            bint channels_last, Py_ssize_t threads,
        )
        Py_ssize_t threads
        Py_ssize_t scratch_bytes()
        Py_ssize_t rounds()
        Py_ssize_t tasks(int isa, Py_ssize_t round)
        void run(int isa, Py_ssize_t round, Py_ssize_t index, int thread, const T *x, T *out, char *scratch)


# The table belongs to `plan`, which must outlive the result.
cdef ColumnPlan native_plan(plan):
    cdef ColumnPlan p
    cdef const int32_t[::1] table = plan.table
    p.H, p.W, p.Kw, p.Ph, p.columns, p.entries = plan.sizes
    cdef const int32_t *first = &table[0] if table.shape[0] else NULL
    p.column, p.kernel_column, p.rank = first, first + p.columns, first + 2 * p.columns
    p.ptr_first = first + 3 * p.columns
    p.ptr_last = p.ptr_first + p.entries
    return p


cdef ColumnFormat native_format(plan):
    cdef ColumnFormat format
    format.sets, format.wide = plan.sets, plan.wide
    return format


def rooms(plan):
    """Elements of a plane's regions of values and of indices, and of the scratch of a thread that encodes."""
    cdef ColumnPlan p = native_plan(plan)
    return p.value_room(), p.index_room(plan.sets), p.transposed()


def encode(
    size_t x,                         # IN   address of (N, C, H, W), or channels-last (N, H, W, C)
    bint channels_last,
    Py_ssize_t N, Py_ssize_t C,
    plan,
    int32_t[:, ::1] start,            # OUT  (N * C, columns + 1) first value of every column
    int32_t[:, ::1] word,             # OUT  the same of indices; `start` where they are as many as values
    floating[:, ::1] DA,              # OUT  (N * C, room) values at the front of each row
    unsigned char[:, ::1] IN,         # OUT  (N * C, room) indices likewise
    uint64_t[:, ::1] rows,            # OUT  (N * C, columns * words) row masks read back from IN, or (0, 0)
    floating[:, ::1] scratch,         # SCRATCH (num_threads, rooms()[2])
    int isa,
    int num_threads,
):
    """The streams of maps, those of each plane in regions of its own."""
    cdef ColumnPlan p = native_plan(plan)
    cdef ColumnFormat format = native_format(plan)
    cdef ColumnRegions[floating] to
    cdef ColumnSource[floating] source
    cdef Py_ssize_t index, own = scratch.shape[1]
    if N * C * p.H * p.W == 0:
        start[:, :] = 0
        word[:, :] = 0
        return
    to.values, to.value_step = &DA[0, 0], DA.shape[1]
    to.indices, to.index_step = <char *>&IN[0, 0], IN.shape[1] // format.index_bytes()
    to.start, to.word, to.rows = &start[0, 0], &word[0, 0], <uint64_t *>NULL
    if rows.shape[1]:
        to.rows = &rows[0, 0]
    source.x, source.planes, source.C, source.channels_last = <const floating *>x, N * C, C, channels_last
    cdef floating *transposed = &scratch[0, 0]
    for index in prange(source.parts(isa), nogil=True, num_threads=num_threads, schedule="static"):
        column_encode(isa, format, &p, source, index, transposed + threadid() * own, to)


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
    cdef ColumnFormat format = native_format(plan)
    cdef Py_ssize_t n, plane = p.H * p.W, step = p.columns + 1
    if x.shape[0] == 0 or DA.shape[0] == 0:
        return
    cdef floating *target = &x[0, 0, 0] if plane else NULL
    cdef int32_t *starts = &start[0, 0]
    cdef int32_t *words = &word[0, 0]
    cdef const floating *values = &DA[0]
    cdef const void *index = &IN[0] if IN.shape[0] else NULL
    cdef const void *pointers = &ptr[0] if ptr.shape[0] else NULL
    cdef const int64_t *offsets = &offset[0]
    cdef const int64_t *word_offsets = &word_offset[0]
    cdef const int64_t *rows = &row[0]
    cdef unsigned char *status = &valid[0]
    for n in prange(x.shape[0], nogil=True, num_threads=num_threads, schedule="static"):
        if offsets[n + 1] > offsets[n]:
            status[n] = column_decode(
                format, &p, pointers, rows[n] * p.entries, values + offsets[n], index, word_offsets[n],
                offsets[n + 1] - offsets[n], word_offsets[n + 1] - word_offsets[n], starts + n * step,
                words + n * step, target + n * plane,
            )


def gather(
    const unsigned char[:, ::1] regions,  # IN   (P, bytes): a stream at the front of each row
    const int64_t[::1] offset,            # IN   (P + 1,) where each begins in `stream`, in bytes
    unsigned char[::1] stream,            # OUT  one after the other
    int num_threads,
):
    """Streams that follow one another, from regions of equal size."""
    cdef Py_ssize_t n, step = regions.shape[1]
    if regions.shape[0] == 0 or stream.shape[0] == 0:
        return
    cdef const unsigned char *source = &regions[0, 0]
    cdef const int64_t *place = &offset[0]
    cdef unsigned char *target = &stream[0]
    for n in prange(regions.shape[0], nogil=True, num_threads=num_threads, schedule="static"):
        memcpy(target + place[n], source + n * step, place[n + 1] - place[n])


cdef class Convolution:
    """A convolution whose sizes and weights are known: a call has addresses only.

    fields: those of ColumnFields (columns/convolution.h) by name; a missing one is an error. Whoever makes
    it keeps the memory that they are addresses of. There must be an input and an output.
    """

    cdef ColumnFields fields
    cdef ColumnPlan plan
    cdef ColumnFormat format
    cdef bint is_double
    cdef int isa
    cdef object held

    def __init__(self, bint is_double, dict fields, plan, int isa):
        self.fields = fields
        self.plan, self.format, self.held = native_plan(plan), native_format(plan), plan
        self.is_double = is_double
        self.isa = isa

    def scratch_bytes(self, int num_threads):
        """Scratch of a call."""
        if self.is_double:
            return ColumnConvolution[double](
                self.fields, self.plan, self.format, band_double, False, num_threads
            ).scratch_bytes()
        return ColumnConvolution[float](
            self.fields, self.plan, self.format, band_float, False, num_threads
        ).scratch_bytes()

    def __call__(
        self,
        size_t x,           # IN   address of (N, C, H, W), or channels-last (N, H, W, C)
        bint channels_last,
        size_t out,         # OUT  address of (N, Oh, Ow, K)
        size_t scratch,     # SCRATCH address of scratch_bytes(), aligned to 64
        int num_threads,
    ):
        """The input encoded, and the convolution over its streams."""
        if self.is_double:
            convolve(
                ColumnConvolution[double](
                    self.fields, self.plan, self.format, band_double, channels_last, num_threads
                ),
                self.isa, <const double *>x, <double *>out, <char *>scratch,
            )
        else:
            convolve(
                ColumnConvolution[float](
                    self.fields, self.plan, self.format, band_float, channels_last, num_threads
                ),
                self.isa, <const float *>x, <float *>out, <char *>scratch,
            )


cdef void convolve(
    const ColumnConvolution[floating] &c, int isa, const floating *x, floating *out, char *scratch
) noexcept:
    cdef Py_ssize_t round = 0, index
    with nogil, parallel(num_threads=<int>c.threads):
        for round in range(c.rounds()):
            for index in prange(c.tasks(isa, round), schedule="dynamic"):
                c.run(isa, round, index, threadid(), x, out, scratch)
