"""CPC family: occupancy masks of channels-last maps, and the convolution that walks them.

Layouts and numerics are those of native/cpc.h. A task is a band of output rows of one image for one
block of filters; tasks are shared out among threads and each output has one owner.
"""

from cython cimport floating
from cython.parallel cimport prange, threadid
from libc.stdint cimport uint64_t

cdef extern from "cpc.h" namespace "jsc" nogil:
    void cpc_masks[T](int isa, const T *x, Py_ssize_t pixels, Py_ssize_t C, Py_ssize_t plane, uint64_t *mask)
    void cpc_band[T](int isa, int V, const CpcTask[T] *task)
    int cpc_taps(Py_ssize_t Kw, Py_ssize_t Sw, Py_ssize_t Dw)
    int cpc_margin(int taps, int S)


cdef void band_float(int isa, int V, const CpcTask[float] *task) noexcept nogil:
    cpc_band(isa, V, task)


cdef void band_double(int isa, int V, const CpcTask[double] *task) noexcept nogil:
    cpc_band(isa, V, task)


def taps(Py_ssize_t Kw, Py_ssize_t Sw, Py_ssize_t Dw):
    """Kernel columns that one sweep takes together, 0 where the kernel runs column by column."""
    return cpc_taps(Kw, Sw, Dw)


def tile_columns(Py_ssize_t Kw, Py_ssize_t Sw, Py_ssize_t Dw, Py_ssize_t Ow):
    """Columns of one row of a task's tile of partial sums."""
    cdef int width = cpc_taps(Kw, Sw, Dw)
    return Ow + 2 * (cpc_margin(width, Sw) if width else cpc_margin(1, 1))


def encode(
    const floating[:, :, :, ::1] x,   # IN   (N, H, W, C)
    uint64_t[:, :, :, ::1] mask,      # OUT  (N, ceil(C / 64), H, W)
    int isa,
    int num_threads,
):
    """Bit b of mask[n, s, h, w] says whether x[n, h, w, 64 s + b] is not zero (NaN is not)."""
    cdef Py_ssize_t N = x.shape[0], H = x.shape[1], W = x.shape[2], C = x.shape[3]
    cdef Py_ssize_t row, n, sets = mask.shape[1], plane = H * W
    if N * plane * C == 0:
        return
    cdef const floating *source = &x[0, 0, 0, 0]
    cdef uint64_t *target = &mask[0, 0, 0, 0]
    for row in prange(N * H, nogil=True, num_threads=num_threads, schedule="static"):
        n = row // H
        cpc_masks(isa, source + row * W * C, W, C, plane, target + n * sets * plane + (row - n * H) * W)


cdef void run_task(int isa, int V, CpcTask[floating] task, floating *tile, Py_ssize_t index, Py_ssize_t bands, Py_ssize_t blocks,
                   Py_ssize_t band_rows, Py_ssize_t lanes, Py_ssize_t Oh, const floating *bias) noexcept nogil:
    # Filter blocks vary fastest: neighbouring tasks read the same rows of the input.
    cdef Py_ssize_t block = index % blocks, band = index // blocks % bands, n = index // blocks // bands
    cdef Py_ssize_t sets = (task.C + 63) // 64
    task.tile = tile
    task.row0 = band * band_rows
    task.rows = min(band_rows, Oh - task.row0)
    task.filters = min(lanes, task.K - block * lanes)
    task.x += n * task.H * task.W * task.C
    task.mask += n * sets * task.H * task.W
    task.weight += block * sets * task.Kh * 64 * task.Kw * lanes
    task.bias = bias + block * lanes if bias != NULL else NULL
    task.out += (n * Oh + task.row0) * task.Ow * task.K + block * lanes
    cpc_band(isa, V, &task)


def convolve(
    const floating[:, :, :, ::1] x,            # IN   (N, H, W, C)
    const uint64_t[:, :, :, ::1] mask,         # IN   (N, ceil(C / 64), H, W)
    const floating[:, :, :, :, :, ::1] weight,  # IN   (K blocks, sets, Kh, 64, Kw, V lanes)
    const floating[::1] bias,                  # IN   (K,) or (0,) for none
    floating[:, ::1] tile,                     # SCRATCH (num_threads, band_rows * tile_columns() * V lanes)
    floating[:, :, :, ::1] out,                # OUT  (N, Oh, Ow, K)
    int V, Py_ssize_t band_rows,
    Py_ssize_t Sh, Py_ssize_t Sw, Py_ssize_t Ph, Py_ssize_t Pw, Py_ssize_t Dh, Py_ssize_t Dw,
    int isa,
    int num_threads,
):
    """Convolution over the non-zeros of x; the sizes of all arrays must agree."""
    cdef CpcTask[floating] task
    cdef Py_ssize_t index, Oh = out.shape[1], bands = (Oh + band_rows - 1) // band_rows
    cdef Py_ssize_t blocks = weight.shape[0], lanes = weight.shape[5], tasks = out.shape[0] * bands * blocks
    if tasks == 0 or out.shape[2] == 0 or x.shape[1] * x.shape[2] * x.shape[3] == 0:
        return
    cdef const floating *first_bias = &bias[0] if bias.shape[0] else NULL
    cdef floating *first_tile = &tile[0, 0]
    cdef Py_ssize_t tile_step = tile.shape[1]
    task.x, task.mask, task.weight, task.out = &x[0, 0, 0, 0], &mask[0, 0, 0, 0], &weight[0, 0, 0, 0, 0, 0], &out[0, 0, 0, 0]
    task.H, task.W, task.C = x.shape[1], x.shape[2], x.shape[3]
    task.pixel_step, task.row_step, task.set_step = task.C, task.W * task.C, 64
    task.K, task.Kh, task.Kw, task.Ow = out.shape[3], weight.shape[2], weight.shape[4], out.shape[2]
    task.Sh, task.Sw, task.Ph, task.Pw, task.Dh, task.Dw = Sh, Sw, Ph, Pw, Dh, Dw
    for index in prange(tasks, nogil=True, num_threads=num_threads, schedule="dynamic"):
        run_task(isa, V, task, first_tile + threadid() * tile_step, index, bands, blocks, band_rows, lanes, Oh, first_bias)
