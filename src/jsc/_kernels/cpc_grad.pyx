"""Gradients of the CPC family: the visits of native/cpc_grad.h, shared out among threads.

S is the map whose non-zeros are visited, D the other one; layouts and numerics are in the header.
A task is up to 16 channels of S and a range of units that the shape alone decides.
"""

from cython cimport floating
from cython.parallel cimport prange, threadid
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memset

cdef extern from "cpc_grad.h" namespace "jsc" nogil:
    cdef cppclass GradTask[T]:
        const T *S
        const T *D
        const T *weight
        T *walk
        T *dots
        const int64_t *S_offset
        const int32_t *D_offset
        const uint64_t *pairs
        T *block
        T *planes
        T *dot_planes
        T *sums
        uint64_t *mask
        Py_ssize_t image_step, row_step, channels, H, W, Hd, Wd, Cd, Kh, Kw, top, left
        Py_ssize_t rows, bands, group, unit0, units
        Py_ssize_t pitch()
        Py_ssize_t words()
        Py_ssize_t groups()
    void grad_range[T](int isa, int V, const GradTask[T] *task, int *finite)

cdef extern from "cpc_grad_weight.h" namespace "jsc" nogil:
    cdef cppclass GradKernel:
        Py_ssize_t Cd, Kh, Kw, VL, turned, s_step, d_step, i_step, j_step
        Py_ssize_t packed()
    void grad_sum_weight[T](const GradKernel *k, Py_ssize_t channels, const T *walk, Py_ssize_t ranges, Py_ssize_t range_step, T *weight)
    bint grad_pack_weight[T](const GradKernel *k, Py_ssize_t channels, const T *weight, T *packed)
    bint grad_pack_sweep[T](const GradKernel *k, Py_ssize_t channels, Py_ssize_t filters, Py_ssize_t row, const T *weight, T *packed)
    void grad_count[T](int isa, const T *x, Py_ssize_t n, Py_ssize_t *count)

cdef Py_ssize_t CHANNELS = 16


cdef Py_ssize_t padded(Py_ssize_t elements, Py_ssize_t itemsize) noexcept nogil:
    return (elements * itemsize + 63) // 64 * 64


cdef Py_ssize_t block_elements(Py_ssize_t group, Py_ssize_t rows, Py_ssize_t Kh, Py_ssize_t pitch, Py_ssize_t VL) noexcept nogil:
    return group * (rows + Kh - 1) * pitch * VL


def scratch_bytes(
    Py_ssize_t W, Py_ssize_t Kh, Py_ssize_t Kw, Py_ssize_t rows, Py_ssize_t group, Py_ssize_t units, Py_ssize_t VL, Py_ssize_t itemsize
):
    """Scratch of one thread of `visit` for ranges of at most `units` units."""
    cdef Py_ssize_t words = (group * rows * W + 63) // 64 * ((units + group - 1) // group)
    return (
        padded(block_elements(group, rows, Kh, W + Kw - 1, VL), itemsize)
        + 2 * padded(CHANNELS * (words + 1) * 64, itemsize)
        + padded(80 * 64, 1) + padded(CHANNELS * words, 8)
    )


def visit(
    size_t S, size_t D, size_t dots,     # IN IN OUT  addresses; dots 0 for none
    const floating[::1] weight,          # IN   (Cs, blocks, taps, VL), or (0,) without dots
    floating[:, ::1] walk,               # OUT  (ranges, Cs * blocks * taps * VL), or (ranges, 0) for none
    const int64_t[::1] S_offset,         # IN   of the pixels of a group
    const int32_t[::1] D_offset,         # IN
    const uint64_t[::1] pairs,           # IN   their bits: visited together with the right neighbour, if that is not zero
    unsigned char[:, ::1] scratch,       # SCRATCH  (num_threads, scratch_bytes()), aligned to 64
    Py_ssize_t image_step, Py_ssize_t row_step, Py_ssize_t Cs, Py_ssize_t H, Py_ssize_t W,
    Py_ssize_t N, Py_ssize_t Hd, Py_ssize_t Wd, Py_ssize_t Cd, Py_ssize_t Kh, Py_ssize_t Kw, Py_ssize_t top, Py_ssize_t left,
    Py_ssize_t rows, Py_ssize_t group, Py_ssize_t units, int V, Py_ssize_t VL,
    int isa,
    int num_threads,
):
    """`walk` for each range of units, and `dots`; returns whether S and D are finite (else neither is to be used)."""
    cdef GradTask[floating] task
    cdef Py_ssize_t ranges = walk.shape[0], tasks = ranges * ((Cs + CHANNELS - 1) // CHANNELS), index
    cdef Py_ssize_t channel_step = (Cd + VL - 1) // VL * Kh * Kw * VL, bands = (H + rows - 1) // rows
    cdef int finite = 1
    task.S, task.D, task.dots = <const floating *>S, <const floating *>D, <floating *>dots
    task.weight = &weight[0] if weight.shape[0] else NULL
    task.walk = &walk[0, 0] if walk.shape[1] else NULL
    task.S_offset, task.D_offset, task.pairs = &S_offset[0], &D_offset[0], &pairs[0]
    task.image_step, task.row_step = image_step, row_step
    task.H, task.W, task.Hd, task.Wd, task.Cd, task.Kh, task.Kw, task.top, task.left = H, W, Hd, Wd, Cd, Kh, Kw, top, left
    task.rows, task.bands, task.group = rows, bands, group
    for index in prange(tasks, nogil=True, num_threads=num_threads, schedule="dynamic"):
        run_task(isa, V, task, &scratch[threadid(), 0], index, ranges, N * bands, units, channel_step, Cs, VL, &finite)
    return finite == 1


cdef void run_task(int isa, int V, GradTask[floating] task, unsigned char *scratch, Py_ssize_t index, Py_ssize_t ranges, Py_ssize_t total,
                   Py_ssize_t units, Py_ssize_t channel_step, Py_ssize_t Cs, Py_ssize_t VL, int *finite) noexcept nogil:
    cdef Py_ssize_t c0 = index // ranges * CHANNELS, which = index % ranges, itemsize = sizeof(floating)
    cdef Py_ssize_t steps = (total + units - 1) // units, step, whole
    cdef int here = 1
    task.channels = min(CHANNELS, Cs - c0)
    task.S += c0
    if task.dots != NULL:
        task.dots += c0
        task.weight += c0 * channel_step
    if task.walk != NULL:
        task.walk += (which * Cs + c0) * channel_step
        memset(task.walk, 0, task.channels * channel_step * itemsize)
    task.block = <floating *>scratch
    scratch += padded(block_elements(task.group, task.rows, task.Kh, task.pitch(), VL), itemsize)
    task.sums = <floating *>scratch
    scratch += 80 * 64
    task.units = units
    whole = padded(CHANNELS * (task.groups() * task.words() + 1) * 64, itemsize)
    task.planes = <floating *>scratch
    task.dot_planes = <floating *>(scratch + whole)
    task.mask = <uint64_t *>(scratch + 2 * whole)
    for step in range(which * steps // ranges, (which + 1) * steps // ranges):
        task.unit0 = step * units
        task.units = min(units, total - task.unit0)
        grad_range(isa, V, &task, &here)
    if not here:
        finite[0] = 0


cdef GradKernel kernel_of(tuple sizes, tuple steps):
    cdef GradKernel k
    k.Cd, k.Kh, k.Kw, k.VL, k.turned = sizes
    k.s_step, k.d_step, k.i_step, k.j_step = steps
    return k


def sum_weight(
    const floating[:, ::1] walk,         # IN   (ranges, Cs * blocks * Kh * Kw * VL)
    size_t weight,                       # OUT  address of element (0, 0, 0, 0)
    Py_ssize_t Cs,
    tuple sizes,                         # Cd, Kh, Kw, VL, whether kernels are turned
    tuple steps,                         # of the weights: from one channel of S, of D, row, column to the next
    int num_threads,
):
    """The ranges added in order, as weights."""
    cdef GradKernel k = kernel_of(sizes, steps)
    cdef Py_ssize_t s
    for s in prange((Cs + CHANNELS - 1) // CHANNELS, nogil=True, num_threads=num_threads, schedule="static"):
        grad_sum_weight(&k, min(CHANNELS, Cs - s * CHANNELS), &walk[0, 0] + s * CHANNELS * k.packed(), walk.shape[0], walk.shape[1],
                        <floating *>weight + s * CHANNELS * k.s_step)


def pack_weight(
    size_t weight,                       # IN   as in `sum_weight`
    floating[::1] packed,                # OUT  (Cs, blocks, Kh, Kw, VL)
    Py_ssize_t Cs,
    tuple sizes,
    tuple steps,
    int num_threads,
):
    """Weights in the layout of `visit`; returns whether they are finite."""
    cdef GradKernel k = kernel_of(sizes, steps)
    cdef Py_ssize_t s, bad = 0
    for s in prange((Cs + CHANNELS - 1) // CHANNELS, nogil=True, num_threads=num_threads, schedule="static"):
        bad += not grad_pack_weight(&k, min(CHANNELS, Cs - s * CHANNELS), <const floating *>weight + s * CHANNELS * k.s_step,
                                    &packed[0] + s * CHANNELS * k.packed())
    return bad == 0


def pack_sweep(
    size_t weight,                       # IN   as in `sum_weight`
    floating[:, :, :, :, :, ::1] packed,  # OUT  (blocks of D, sets of S, Kh, 64, Kw, VL)
    Py_ssize_t Cs,
    tuple sizes,
    tuple steps,
    int num_threads,
):
    """Weights for `cpc.convolve`, S its input and D its output; returns whether they are finite."""
    cdef GradKernel k = kernel_of(sizes, steps)
    cdef Py_ssize_t sets = packed.shape[1], index, b, s, row, bad = 0
    for index in prange(packed.shape[0] * sets * k.Kh, nogil=True, num_threads=num_threads, schedule="static"):
        row = index % k.Kh
        s = index // k.Kh % sets
        b = index // k.Kh // sets
        bad += not grad_pack_sweep(&k, min(64, Cs - s * 64), min(k.VL, k.Cd - b * k.VL), row,
                                   <const floating *>weight + s * 64 * k.s_step + b * k.VL * k.d_step, &packed[b, s, row, 0, 0, 0])
    return bad == 0


def count(
    size_t x,                            # IN   address of (rows, length)
    floating like,
    Py_ssize_t rows, Py_ssize_t length, Py_ssize_t every,
    int isa,
):
    """Elements that are not zero in every `every`-th row."""
    cdef Py_ssize_t row, found = 0
    with nogil:
        for row in range((rows + every - 1) // every):
            grad_count(isa, <const floating *>x + row * every * length, length, &found)
    return found
