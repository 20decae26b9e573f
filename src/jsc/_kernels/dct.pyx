"""Block DCT family: orthonormal 8x8 DCT-II of every block of a stack of planes, and its inverse.

Each function is the other's gradient (the DCT matrix is orthogonal), so there is no backward here.
Strips (rows of blocks) are shared out among threads; every output has one owner.
"""

from cython cimport floating
from cython.parallel cimport prange

cdef extern from "dct8.h" namespace "jsc" nogil:
    void block_dct_strip[T](int isa, const T *image, Py_ssize_t pitch, Py_ssize_t width, T *blocks)
    void block_idct_strip[T](int isa, const T *blocks, Py_ssize_t pitch, Py_ssize_t width, T *image)


def forward(
    const floating[:, :, ::1] x,      # IN   (P, H, W) planes, H and W multiples of 8
    floating[:, :, :, ::1] z,         # OUT  (P, H/8, W/8, 64) coefficients, natural order
    int isa,
    int num_threads,
):
    """Orthonormal 8x8 DCT-II of every block.  Source: ITU-T T.81 (1992), A.3.3."""
    cdef Py_ssize_t strip, rows = z.shape[1], width = x.shape[2], strips = z.shape[0] * rows
    if strips == 0 or width == 0:
        return
    cdef const floating *source = &x[0, 0, 0]
    cdef floating *target = &z[0, 0, 0, 0]
    for strip in prange(strips, nogil=True, num_threads=num_threads, schedule="static"):
        block_dct_strip(isa, source + strip * 8 * width, width, width, target + strip * 8 * width)


def inverse(
    const floating[:, :, :, ::1] z,   # IN   (P, H/8, W/8, 64) coefficients, natural order
    floating[:, :, ::1] x,            # OUT  (P, H, W) planes
    int isa,
    int num_threads,
):
    """Inverse of `forward`, and its gradient."""
    cdef Py_ssize_t strip, rows = z.shape[1], width = x.shape[2], strips = z.shape[0] * rows
    if strips == 0 or width == 0:
        return
    cdef const floating *source = &z[0, 0, 0, 0]
    cdef floating *target = &x[0, 0, 0]
    for strip in prange(strips, nogil=True, num_threads=num_threads, schedule="static"):
        block_idct_strip(isa, source + strip * 8 * width, width, width, target + strip * 8 * width)
