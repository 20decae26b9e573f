"""bf16x3 family: dense float32 convolution on AMX tiles, from sums of three bfloat16 numbers.

Layouts and numerics are those of native/bf16x3.h. Bands of output rows, several at a time, go through
two rounds: their input is split into pieces, then tasks of some pixels by 32 filters are shared out.
"""

from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport uint16_t

cdef extern from "bf16x3.h" namespace "jsc" nogil:
    cdef struct Bf16x3Row:
        const float *x
        uint16_t *to
        Py_ssize_t W, C, Pw, step, pitch, chunk, piece
        int c
        unsigned char *bad

    cdef struct Bf16x3Task:
        const uint16_t *x
        const uint16_t *weight
        const float *bias
        const Py_ssize_t *offset
        float *out
        float *sums
        Py_ssize_t steps, piece, pixel, pitch, Ow, K, first, end
        int filters

    void bf16x3_split(const Bf16x3Row *row)
    void bf16x3_task(const Bf16x3Task *task)
    void bf16x3_begin()
    void bf16x3_end()


cdef void split_row(Bf16x3Row row, const float *x, uint16_t *planes, Py_ssize_t n, Py_ssize_t band, Py_ssize_t r, Py_ssize_t phase,
                    Py_ssize_t H, Py_ssize_t Sh, Py_ssize_t Ph, Py_ssize_t band_rows, Py_ssize_t rows, unsigned char *bad) noexcept nogil:
    cdef Py_ssize_t y = (band * band_rows + r) * Sh + phase - Ph
    row.x = x + (n * H + y) * row.W * row.C if 0 <= y < H else NULL
    row.to = planes + (phase * rows + r) * row.pitch * row.c
    row.bad = bad
    bf16x3_split(&row)


cdef void run_task(Bf16x3Task task, const uint16_t *planes, float *out, Py_ssize_t n, Py_ssize_t band, Py_ssize_t piece_of_band,
                   Py_ssize_t block, Py_ssize_t band_rows, Py_ssize_t task_pixels, Py_ssize_t Oh, float *sums) noexcept nogil:
    cdef Py_ssize_t row0 = band * band_rows
    task.x = planes
    task.weight += block * task.steps * 6 * 512
    task.bias += block * 32
    task.out = out + (n * Oh + row0) * task.Ow * task.K + block * 32
    task.sums = sums
    # The last row ends with its last output: what is beyond may lie outside the planes.
    cdef Py_ssize_t pixels = (min(band_rows, Oh - row0) - 1) * task.pitch + task.Ow
    task.first = piece_of_band * task_pixels
    task.end = min(task.first + task_pixels, pixels)
    task.filters = min(32, task.K - block * 32)
    if task.first < task.end:
        bf16x3_task(&task)


def convolve(
    size_t x,                       # IN   address of (N, H, W, C)
    size_t out,                     # OUT  address of (N, Oh, Ow, K)
    const short[::1] weight,        # IN   (K blocks, steps, 3, 32 filters, 32) bfloat16 as bits, in tiles
    const float[::1] bias,          # IN   (32 K blocks,)
    const Py_ssize_t[::1] offset,   # IN   (steps,)
    unsigned char[::1] scratch,     # SCRATCH aligned to 64: sums of every thread, planes of `group` bands, slack
    Py_ssize_t N, Py_ssize_t H, Py_ssize_t W, Py_ssize_t C, Py_ssize_t K, Py_ssize_t Oh, Py_ssize_t Ow,
    Py_ssize_t Sh, Py_ssize_t Ph, Py_ssize_t Pw,
    int c,                          # channels to a chunk
    Py_ssize_t column_step,         # input columns to a column of the planes
    Py_ssize_t pixel_columns,       # columns of the planes to an output
    Py_ssize_t row_pixels,          # outputs to a row of the planes
    Py_ssize_t rows, Py_ssize_t phases, Py_ssize_t piece,
    Py_ssize_t band_rows, Py_ssize_t group, Py_ssize_t task_pixels,
    Py_ssize_t slack,               # bfloat16 numbers behind the planes that tiles may reach
    int num_threads,
):
    """True if it has convolved; False if the input has a number that three bfloat16 cannot sum up to."""
    cdef Py_ssize_t bands = (Oh + band_rows - 1) // band_rows, units = N * bands, blocks = (K + 31) // 32
    cdef Py_ssize_t chunks = (C + c - 1) // c, planes_size = chunks * 3 * piece
    cdef Py_ssize_t tasks_of_band = (band_rows * row_pixels + task_pixels - 1) // task_pixels
    cdef Py_ssize_t start = 0, count = 0, index, u, i
    cdef Bf16x3Row row
    cdef Bf16x3Task task
    cdef float *sums = <float *>&scratch[0]
    cdef uint16_t *planes = <uint16_t *>(sums + 1024 * num_threads)
    cdef uint16_t *behind = planes + group * planes_size
    cdef unsigned char *bad = <unsigned char *>(behind + slack)
    if units == 0 or Ow == 0 or K == 0:
        return True
    for i in range(slack):
        behind[i] = 0
    for i in range(64 * num_threads):
        bad[i] = 0
    row.W, row.C, row.Pw, row.step, row.pitch, row.c = W, C, Pw, column_step, row_pixels * pixel_columns, c
    row.chunk, row.piece = 3 * piece, piece
    task.weight, task.bias, task.offset = <const uint16_t *>&weight[0], &bias[0], &offset[0]
    task.steps, task.piece, task.pixel = offset.shape[0], piece, pixel_columns * c
    task.pitch, task.Ow, task.K = row_pixels, Ow, K
    with nogil, parallel(num_threads=num_threads):
        while start < units:
            count = min(group, units - start)
            for index in prange(count * rows * phases, schedule="static"):
                u = index // (rows * phases)
                split_row(row, <const float *>x, planes + u * planes_size, (start + u) // bands, (start + u) % bands,
                          index % rows, index // rows % phases, H, Sh, Ph, band_rows, rows, bad + 64 * threadid())
            bf16x3_begin()
            for index in prange(count * tasks_of_band * blocks, schedule="dynamic"):
                u = index // (tasks_of_band * blocks)
                run_task(task, planes + u * planes_size, <float *>out, (start + u) // bands, (start + u) % bands,
                         index % tasks_of_band, index // tasks_of_band % blocks, band_rows, task_pixels, Oh,
                         sums + 1024 * threadid())
            bf16x3_end()
            start = start + group
    for i in range(num_threads):
        if bad[64 * i]:
            return False
    return True
