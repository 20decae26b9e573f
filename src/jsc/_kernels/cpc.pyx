"""CPC family: occupancy masks of channels-last maps, and the convolution that walks them.

Layouts and numerics are those of native/cpc.h. A task is a band of output rows of one image for one
block of filters; tasks are shared out among threads and each output has one owner.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport uint64_t

cdef extern from "cpc.h" namespace "jsc" nogil:
    void cpc_masks[T](int isa, const T *x, Py_ssize_t pixels, Py_ssize_t C, Py_ssize_t plane, uint64_t *mask)
    void cpc_band[T](int isa, int V, const CpcTask[T] *task)
    int cpc_taps(Py_ssize_t Kw, Py_ssize_t Sw, Py_ssize_t Dw)
    int cpc_margin(int taps, int S)
    bint cpc_writes_masks(Py_ssize_t block)


cdef void band_float(int isa, int V, const CpcTask[float] *task) noexcept nogil:
    cpc_band(isa, V, task)


cdef void band_double(int isa, int V, const CpcTask[double] *task) noexcept nogil:
    cpc_band(isa, V, task)


def taps(Py_ssize_t Kw, Py_ssize_t Sw, Py_ssize_t Dw):
    """Kernel columns that one sweep takes together, 0 where the kernel runs column by column."""
    return cpc_taps(Kw, Sw, Dw)


cdef Py_ssize_t mask_bytes(Py_ssize_t N, Py_ssize_t sets, Py_ssize_t plane) noexcept nogil:
    return (N * sets * plane * 8 + 63) // 64 * 64


cpdef Py_ssize_t tile_columns(Py_ssize_t Kw, Py_ssize_t Sw, Py_ssize_t Dw, Py_ssize_t Ow) noexcept:
    """Columns of one row of a task's tile of partial sums."""
    cdef int width = cpc_taps(Kw, Sw, Dw)
    return Ow + 2 * (cpc_margin(width, Sw) if width else cpc_margin(1, 1))


def scratch_bytes(Py_ssize_t N, Py_ssize_t sets, Py_ssize_t plane, Py_ssize_t tile_elements, Py_ssize_t itemsize):
    """Scratch of `convolve`: masks, then a tile of `tile_elements` for every thread."""
    return mask_bytes(N, sets, plane) + tile_elements * itemsize


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
    cdef Py_ssize_t sets = (task.C + 63) // 64, first = block * lanes, at
    task.tile = tile
    task.row0 = band * band_rows
    task.rows = min(band_rows, Oh - task.row0)
    task.filters = min(lanes, task.K - first)
    task.x += n * task.H * task.W * task.C
    task.mask += n * sets * task.H * task.W
    task.weight += block * sets * task.Kh * 64 * task.Kw * lanes
    task.bias = bias + first if bias != NULL else NULL
    at = (n * Oh + task.row0) * task.Ow * task.K + first
    task.out += at
    if task.residual != NULL:
        task.residual += at
    if task.norm.mean != NULL:
        task.norm.mean += first
        task.norm.variance += first
    if task.norm.weight != NULL:
        task.norm.weight += first
    if task.norm.bias != NULL:
        task.norm.bias += first
    if task.out_mask != NULL:
        task.out_mask += (n * ((task.K + 63) // 64) + first // 64) * task.out_plane + task.row0 * task.Ow
        task.first_bit = first % 64
        task.last = block == blocks - 1
    cpc_band(isa, V, &task)


def convolve(
    size_t x,                                  # IN   address of (N, H, W, C)
    size_t out,                                # OUT  address of (N, Oh, Ow, K)
    const floating[:, :, :, :, :, ::1] weight,  # IN   (K blocks, sets, Kh, 64, Kw, V lanes)
    const floating[::1] bias,                  # IN   (K,) or (0,) for none
    unsigned char[::1] scratch,                # SCRATCH scratch_bytes(), aligned to 64
    Py_ssize_t N, Py_ssize_t H, Py_ssize_t W, Py_ssize_t C, Py_ssize_t K, Py_ssize_t Oh, Py_ssize_t Ow,
    int V, Py_ssize_t band_rows,
    Py_ssize_t Sh, Py_ssize_t Sw, Py_ssize_t Ph, Py_ssize_t Pw, Py_ssize_t Dh, Py_ssize_t Dw,
    size_t masks,                              # IN   address of (N, sets, H, W) masks of x; 0: encode
    size_t mean, size_t variance, size_t norm_weight, size_t norm_bias,  # IN   addresses of (K,), or 0
    double eps,
    size_t residual,                           # IN   address of (N, Oh, Ow, K), or 0
    bint relu,
    size_t out_masks,                          # OUT  address of (N, ceil(K / 64), Oh, Ow) masks of out, or 0
    int isa,
    int num_threads,
):
    """Masks of x, then the convolution over its non-zeros; out = relu(batch_norm(conv) + residual).

    Input and output are addresses because a buffer takes as long to acquire as a small layer to run;
    they come from tensors of the sizes given here. `convolve["float"]` is a specialisation.
    """
    cdef CpcTask[floating] task
    cdef Py_ssize_t index, n, row, bands = (Oh + band_rows - 1) // band_rows, sets = weight.shape[1], plane = H * W
    cdef Py_ssize_t blocks = weight.shape[0], lanes = weight.shape[5], tasks = N * bands * blocks
    cdef Py_ssize_t out_sets = (K + 63) // 64, out_plane = Oh * Ow
    if tasks == 0 or Ow == 0:
        return
    cdef const floating *source = <const floating *>x
    cdef const floating *target = <const floating *>out
    cdef const floating *first_bias = &bias[0] if bias.shape[0] else NULL
    cdef uint64_t *mask = <uint64_t *>&scratch[0]
    cdef uint64_t *target_mask = <uint64_t *>out_masks
    cdef Py_ssize_t tile_step = band_rows * tile_columns(weight.shape[4], Sw, Dw, Ow) * lanes
    cdef floating *first_tile = <floating *>&scratch[mask_bytes(N, sets, plane)]
    cdef bint encodes = masks == 0, own_pass = out_masks != 0 and not cpc_writes_masks(lanes)
    task.x, task.weight, task.out = source, &weight[0, 0, 0, 0, 0, 0], <floating *>out
    task.mask = mask if encodes else <uint64_t *>masks
    task.H, task.W, task.C = H, W, C
    task.pixel_step, task.row_step, task.set_step = C, W * C, 64
    task.K, task.Kh, task.Kw, task.Ow = K, weight.shape[2], weight.shape[4], Ow
    task.Sh, task.Sw, task.Ph, task.Pw, task.Dh, task.Dw = Sh, Sw, Ph, Pw, Dh, Dw
    task.residual, task.relu = <const floating *>residual, relu
    task.norm.mean, task.norm.variance = <const floating *>mean, <const floating *>variance
    task.norm.weight, task.norm.bias = <const floating *>norm_weight, <const floating *>norm_bias
    task.norm.eps = eps
    task.out_mask = <uint64_t *>NULL if own_pass else target_mask
    task.out_plane = out_plane
    with nogil, parallel(num_threads=num_threads):
        if encodes:
            for row in prange(N * H, schedule="static"):
                n = row // H
                cpc_masks(isa, source + row * W * C, W, C, plane, mask + n * sets * plane + (row - n * H) * W)
        for index in prange(tasks, schedule="dynamic"):
            run_task(isa, V, task, first_tile + threadid() * tile_step, index, bands, blocks, band_rows, lanes, Oh, first_bias)
        if own_pass:
            for row in prange(N * Oh, schedule="static"):
                n = row // Oh
                cpc_masks(isa, target + row * Ow * K, Ow, K, out_plane, target_mask + n * out_sets * out_plane + (row - n * Oh) * Ow)
