"""Local contrast of planes, and its gradient.

Bands of rows of the planes are shared out among threads; every output has one owner.
"""

from cython cimport floating
from cython.parallel cimport prange, threadid

cdef extern from "contrast.h" namespace "jsc" nogil:
    const int CONTRAST_REACH
    cdef cppclass ContrastCall[T]:
        const T *x
        const T *g
        T *out
        Py_ssize_t planes, height, width, channels, bands, reach
        const T *taps
        const T *constants
        T *scratch
        Py_ssize_t scratch_numbers()
    void contrast_band[T](int isa, const ContrastCall[T] *call, Py_ssize_t index, Py_ssize_t thread)

MOST_REACH = CONTRAST_REACH

cdef enum:
    BAND_ROWS = 64  # of a plane that is divided, at least


def scratch_numbers(Py_ssize_t width, Py_ssize_t reach, bint backward):
    """Numbers of scratch that a thread needs."""
    cdef float none = 0
    cdef ContrastCall[float] call
    call.width, call.reach = width, reach
    if backward:
        call.g = &none
    return call.scratch_numbers()


cdef void run(ContrastCall[floating] *call, int isa, int num_threads) noexcept:
    cdef Py_ssize_t task
    # A band computes rows around it again: no more of them than threads can use.
    call.bands = 1
    if call.planes < 4 * num_threads and num_threads > 1:
        call.bands = (4 * num_threads + call.planes - 1) // call.planes
        call.bands = max(1, min(call.bands, call.height // BAND_ROWS))
    for task in prange(
        call.planes * call.bands, nogil=True, num_threads=num_threads, schedule="static"
    ):
        contrast_band(isa, call, task, threadid())


cdef ContrastCall[floating] described(
    const floating[:, :, ::1] x, const floating[::1] taps, const floating[:, ::1] constants,
    floating[:, ::1] scratch,
):
    cdef ContrastCall[floating] call
    call.planes, call.height, call.width = x.shape[0], x.shape[1], x.shape[2]
    call.channels, call.reach = constants.shape[0], taps.shape[0] - 1
    call.x = &x[0, 0, 0]
    call.taps, call.constants, call.scratch = &taps[0], &constants[0, 0], &scratch[0, 0]
    return call


def forward(
    const floating[:, :, ::1] x,      # IN   (P, H, W) planes
    const floating[::1] taps,         # IN   (reach + 1) of the Gaussian, the middle first
    const floating[:, ::1] constants,  # IN   (channels, 3) offset, scale, epsilon of planes in turn
    floating[:, :, ::1] y,            # OUT  (P, H, W)
    floating[:, ::1] scratch,         # SCRATCH (threads, scratch_numbers)
    int isa,
    int num_threads,
):
    """y = offset + scale v / (sqrt(G v^2) + epsilon), v = x - G x."""
    if x.shape[0] * x.shape[1] * x.shape[2] == 0:
        return
    cdef ContrastCall[floating] call = described(x, taps, constants, scratch)
    call.out = &y[0, 0, 0]
    run(&call, isa, num_threads)


def backward(
    const floating[:, :, ::1] g,      # IN   (P, H, W) gradient of y
    const floating[:, :, ::1] x,      # IN   (P, H, W)
    const floating[::1] taps,         # IN   as for `forward`
    const floating[:, ::1] constants,  # IN
    floating[:, :, ::1] dx,           # OUT  (P, H, W)
    floating[:, ::1] scratch,         # SCRATCH (threads, scratch_numbers)
    int isa,
    int num_threads,
):
    """The gradient of x; what `forward` computed is computed again."""
    if x.shape[0] * x.shape[1] * x.shape[2] == 0:
        return
    cdef ContrastCall[floating] call = described(x, taps, constants, scratch)
    call.g, call.out = &g[0, 0, 0], &dx[0, 0, 0]
    run(&call, isa, num_threads)
