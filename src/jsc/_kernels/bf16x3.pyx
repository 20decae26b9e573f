"""bf16x3 family: dense float32 convolution on AMX tiles, from sums of three bfloat16 numbers.

Layouts and numerics are those of native/bf16x3.h. A thread splits the input of a band of output
rows, or of some pixels, and runs through all filters; where weights are too many to be read by every
thread, bands go through two rounds: threads split them together, then share out filters and pixels.
"""

from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport uint16_t

cdef extern from "bf16x3.h" namespace "jsc" nogil:
    cdef struct Bf16x3Row:
        const float *x
        uint16_t *to
        Py_ssize_t H, W, C, y, Pw, step, pitch, chunk, piece, Kh, Dh, across, size
        int c
        unsigned char *bad

    cdef struct Bf16x3Task:
        const uint16_t *x
        const uint16_t *weight
        const float *bias
        const Py_ssize_t *offset
        const float *scale
        const float *shift
        const float *residual
        bint relu
        float *out
        float *sums
        Py_ssize_t steps, piece, pixel, pitch, Ow, K, first, end
        int filters

    void bf16x3_split(const Bf16x3Row *row)
    void bf16x3_task(const Bf16x3Task *task)
    void bf16x3_advance(Bf16x3Task &task, Py_ssize_t numbers)
    void bf16x3_select(Bf16x3Task &task, Py_ssize_t block)
    void bf16x3_norm(Py_ssize_t K, const float *mean, const float *variance, const float *weight, const float *bias, float eps,
                     float *scale, float *shift)
    void bf16x3_pixels(const Bf16x3Row *row, const Bf16x3Task *task, Py_ssize_t unit, Py_ssize_t Sh, Py_ssize_t first, Py_ssize_t end)
    void bf16x3_begin()
    void bf16x3_end()


cdef struct Place:
    # Where everything is; planes, sums and bad are the thread's own, except for planes that are shared.
    const float *x
    uint16_t *planes
    float *sums
    unsigned char *bad
    Py_ssize_t Oh, Sh, Ph, bands, band_rows, rows, phases


cdef void split_row(Bf16x3Row row, Place at, Py_ssize_t unit, Py_ssize_t index) noexcept nogil:
    # Row `index` of the planes, phase by phase, of band `unit` of all images.
    cdef Py_ssize_t n = unit // at.bands, band = unit - n * at.bands, phase = index // at.rows
    row.y = (band * at.band_rows + index - phase * at.rows) * at.Sh + phase - at.Ph
    row.x = at.x + n * row.H * row.W * row.C
    row.to = at.planes + index * row.pitch * (row.size if row.size else row.c)
    row.bad = at.bad
    bf16x3_split(&row)


cdef void run_task(Bf16x3Task task, Place at, Py_ssize_t unit, Py_ssize_t block, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t n = unit // at.bands, row0 = (unit - n * at.bands) * at.band_rows
    task.x, task.sums = at.planes, at.sums
    bf16x3_advance(task, (n * at.Oh + row0) * task.Ow * task.K)
    bf16x3_select(task, block)
    # The last row ends with its last output: what is beyond may lie outside the planes.
    cdef Py_ssize_t pixels = (min(at.band_rows, at.Oh - row0) - 1) * task.pitch + task.Ow
    task.first = first
    task.end = min(first + count, pixels)
    if task.first < task.end:
        bf16x3_task(&task)


cdef void run_band(Bf16x3Row row, Bf16x3Task task, Place at, Py_ssize_t unit) noexcept nogil:
    cdef Py_ssize_t index
    for index in range(at.rows * at.phases):
        split_row(row, at, unit, index)
    for index in range((task.K + 31) // 32):
        run_task(task, at, unit, index, 0, at.band_rows * task.pitch)


cdef void run_pixels(Bf16x3Row row, Bf16x3Task task, Place at, Py_ssize_t n, Py_ssize_t first, Py_ssize_t count, Py_ssize_t together) noexcept nogil:
    cdef Py_ssize_t pixels = at.Oh * task.Ow
    row.x = at.x + n * row.H * row.W * row.C
    row.y = -at.Ph
    row.to = at.planes
    row.bad = at.bad
    task.x, task.sums, task.first = at.planes, at.sums, 0
    bf16x3_advance(task, n * pixels * task.K)
    bf16x3_pixels(&row, &task, together, at.Sh, first, min(first + count, pixels))


cdef Place own(Place at, Py_ssize_t planes) noexcept nogil:
    # The calling thread's part; `planes` is the step between threads' planes, 0 where they are shared.
    cdef int thread = threadid()
    at.planes += thread * planes
    at.sums += thread * 1024
    at.bad += thread * 64
    return at


def convolve(
    size_t x,                       # IN   address of (N, H, W, C)
    size_t out,                     # OUT  address of (N, Oh, Ow, K)
    const short[::1] weight,        # IN   (K blocks, steps, 3, 32 filters, 32) bfloat16 as bits, in tiles
    const float[::1] bias,          # IN   (32 K blocks,)
    const Py_ssize_t[::1] offset,   # IN   (steps,)
    unsigned char[::1] scratch,     # SCRATCH aligned to 64: sums of threads, batch-norm, planes with slack, a line of each thread
    size_t mean, size_t variance, size_t norm_weight, size_t norm_bias,  # IN   addresses of (K,), or 0
    float eps,
    size_t residual,                # IN   address of (N, Oh, Ow, K), or 0
    bint relu,
    Py_ssize_t N, Py_ssize_t H, Py_ssize_t W, Py_ssize_t C, Py_ssize_t K, Py_ssize_t Oh, Py_ssize_t Ow,
    Py_ssize_t Sh, Py_ssize_t Ph, Py_ssize_t Pw,
    int c,                          # channels to a chunk, 16 or 32
    Py_ssize_t Kh, Py_ssize_t Dh, Py_ssize_t across, Py_ssize_t size,  # windows; size 0 without
    Py_ssize_t column_step,         # input columns to a column of the planes
    Py_ssize_t pixel_columns,       # columns of the planes to an output
    Py_ssize_t row_pixels,          # outputs to a row of the planes
    Py_ssize_t rows, Py_ssize_t phases, Py_ssize_t piece,
    Py_ssize_t band_rows,
    Py_ssize_t shared,              # bands that all threads work on together; 0: each thread on its own
    Py_ssize_t together,            # pixels that are split and used up together; 0: whole bands
    Py_ssize_t task_pixels,
    Py_ssize_t slack,               # bfloat16 numbers behind the planes that tiles may reach
    int num_threads,
):
    """out = relu(batch_norm(conv) + residual).

    True if it has convolved; False if the input has a number that three bfloat16 cannot sum up to."""
    cdef Py_ssize_t bands = (Oh + band_rows - 1) // band_rows, units = N * bands, blocks = (K + 31) // 32
    cdef Py_ssize_t chunks = 1 if size else (C + c - 1) // c, planes = chunks * 3 * piece
    cdef Py_ssize_t parts = (band_rows * row_pixels + task_pixels - 1) // task_pixels
    cdef Py_ssize_t tasks = (Oh * Ow + task_pixels - 1) // task_pixels
    cdef Py_ssize_t start = 0, count = 0, index, i, u, thread_planes = planes + slack
    cdef Bf16x3Row row
    cdef Bf16x3Task task
    cdef Place at, here
    if units == 0 or Ow == 0 or K == 0:
        return True
    at.x, at.sums = <const float *>x, <float *>&scratch[0]
    cdef float *scale = at.sums + 1024 * num_threads
    cdef float *shift = scale + 32 * blocks
    at.planes = <uint16_t *>(shift + 32 * blocks)
    at.bad = <unsigned char *>(at.planes + (shared * planes + slack if shared else num_threads * thread_planes))
    at.Oh, at.Sh, at.Ph, at.bands, at.band_rows, at.rows, at.phases = Oh, Sh, Ph, bands, band_rows, rows, phases
    for i in range(64 * num_threads):
        at.bad[i] = 0
    for u in range(1 if shared else num_threads):
        for i in range(slack):
            at.planes[(shared * planes if shared else u * thread_planes + planes) + i] = 0
    row.H, row.W, row.C, row.Pw, row.step, row.pitch, row.c = H, W, C, Pw, column_step, row_pixels * pixel_columns, c
    row.Kh, row.Dh, row.across, row.size = Kh, Dh, across, size
    row.chunk, row.piece = 3 * piece, piece
    task.weight, task.bias, task.offset = <const uint16_t *>&weight[0], &bias[0], &offset[0]
    task.steps, task.piece, task.pixel = offset.shape[0], piece, size if size else pixel_columns * c
    task.pitch, task.Ow, task.K = row_pixels, Ow, K
    task.out, task.residual, task.relu = <float *>out, <const float *>residual, relu
    task.scale, task.shift = <const float *>NULL, <const float *>NULL
    if mean:
        task.scale, task.shift = scale, shift
        bf16x3_norm(K, <const float *>mean, <const float *>variance, <const float *>norm_weight, <const float *>norm_bias, eps,
                    scale, shift)
    with nogil, parallel(num_threads=num_threads):
        bf16x3_begin()
        if together:
            for index in prange(N * tasks, schedule="dynamic"):
                run_pixels(row, task, own(at, thread_planes), index // tasks, index % tasks * task_pixels, task_pixels, together)
        elif not shared:
            for index in prange(units, schedule="dynamic"):
                run_band(row, task, own(at, thread_planes), index)
        while shared and start < units:
            count = min(shared, units - start)
            for index in prange(count * rows * phases, schedule="static"):
                here = own(at, 0)
                u = index // (rows * phases)
                here.planes += u * planes
                split_row(row, here, start + u, index - u * rows * phases)
            for index in prange(count * parts * blocks, schedule="dynamic"):
                here = own(at, 0)
                u = index // (parts * blocks)
                here.planes += u * planes
                run_task(task, here, start + u, index // parts % blocks, index % parts * task_pixels, task_pixels)
            start = start + shared
        bf16x3_end()
    for i in range(num_threads):
        if at.bad[64 * i]:
            return False
    return True
