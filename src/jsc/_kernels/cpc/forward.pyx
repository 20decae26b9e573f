"""CPC family: occupancy masks of channels-last maps, and the convolution that sweeps over them.

Layouts and numerics are those of cpc/sweep.h, rounds and tasks those of cpc/forward.h.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport uint64_t

cdef extern from "cpc/forward.h" namespace "jsc" nogil:
    void cpc_masks[T](
        int isa, const T *x, Py_ssize_t pixels, Py_ssize_t C, Py_ssize_t pitch, Py_ssize_t plane,
        uint64_t *mask,
    )
    void cpc_band[T](int isa, int V, const CpcTask[T] *task)
    int cpc_taps(Py_ssize_t Kw, Py_ssize_t Sw, Py_ssize_t Dw)
    Py_ssize_t cpc_tile_columns(Py_ssize_t Kw, Py_ssize_t Sw, Py_ssize_t Dw, Py_ssize_t Ow)


cdef void band_float(int isa, int V, const CpcTask[float] *task) noexcept nogil:
    cpc_band(isa, V, task)


cdef void band_double(int isa, int V, const CpcTask[double] *task) noexcept nogil:
    cpc_band(isa, V, task)


def taps(Py_ssize_t Kw, Py_ssize_t Sw, Py_ssize_t Dw):
    """Kernel columns that one sweep takes together, 0 where the kernel runs column by column."""
    return cpc_taps(Kw, Sw, Dw)


def tile_columns(Py_ssize_t Kw, Py_ssize_t Sw, Py_ssize_t Dw, Py_ssize_t Ow):
    """Columns of one row of a task's tile of partial sums."""
    return cpc_tile_columns(Kw, Sw, Dw, Ow)


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
        cpc_masks(isa, source + row * W * C, W, C, C, plane, target + n * sets * plane + (row - n * H) * W)


cdef class Convolution:
    """A convolution whose sizes and weights are known: a call has addresses only.

    fields: those of CpcFields (cpc/forward.h) by name; a missing one is an error. Whoever makes it keeps
    the memory that they are addresses of.
    """

    def __init__(self, bint is_double, dict fields, int isa):
        self.fields = fields
        self.is_double = is_double
        self.isa = isa

    def scratch_bytes(self, Py_ssize_t band_rows, int num_threads):
        """Scratch of a call."""
        if self.is_double:
            return CpcConvolution[double](self.fields, band_rows, num_threads).scratch_bytes()
        return CpcConvolution[float](self.fields, band_rows, num_threads).scratch_bytes()

    def __call__(
        self,
        size_t x,           # IN   address of (N, H, W, C)
        size_t out,         # OUT  address of (N, Oh, Ow, K)
        size_t scratch,     # SCRATCH address of scratch_bytes(), aligned to 64
        Py_ssize_t band_rows,
        int num_threads,
    ):
        """Addresses, because a buffer takes as long to acquire as a small layer to run."""
        if self.is_double:
            convolve(CpcConvolution[double](self.fields, band_rows, num_threads), self.isa, x, out, scratch)
        else:
            convolve(CpcConvolution[float](self.fields, band_rows, num_threads), self.isa, x, out, scratch)


cdef void convolve(
    const CpcConvolution[floating] &c, int isa, size_t x, size_t out, size_t scratch,
) noexcept:
    cdef CpcCall[floating] call
    cdef Py_ssize_t round = 0, index
    call.x, call.out, call.scratch = <const floating *>x, <floating *>out, <char *>scratch
    with nogil, parallel(num_threads=<int>c.threads):
        for round in range(c.rounds()):
            for index in prange(c.tasks(round), schedule="dynamic"):
                c.run(isa, round, index, threadid(), call)
