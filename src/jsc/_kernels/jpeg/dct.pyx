"""Block DCT family: orthonormal 8x8 DCT-II of every block of a stack of planes, and its inverse.

Each function is the other's gradient (the DCT matrix is orthogonal), so there is no backward here.
Chunks of blocks are shared out among threads; every output has one owner.
"""

from cython cimport floating
from cython.parallel cimport prange

cdef extern from "jpeg/dct.h" namespace "jsc" nogil:
    const Py_ssize_t CHUNK_BLOCKS
    void block_dct_chunk[T](
        int isa, const T *image, T *blocks, Py_ssize_t columns, Py_ssize_t first, Py_ssize_t count
    )
    void block_idct_chunk[T](
        int isa, const T *blocks, T *image, Py_ssize_t columns, Py_ssize_t first, Py_ssize_t count
    )


def forward(
    const floating[:, :, ::1] x,      # IN   (P, H, W) planes, H and W multiples of 8
    floating[:, :, :, ::1] z,         # OUT  (P, H/8, W/8, 64) coefficients, natural order
    int isa,
    int num_threads,
):
    """Orthonormal 8x8 DCT-II of every block.  Source: ITU-T T.81 (1992), A.3.3."""
    cdef Py_ssize_t chunk, columns = z.shape[2], blocks = z.shape[0] * z.shape[1] * columns
    if blocks == 0:
        return
    cdef const floating *source = &x[0, 0, 0]
    cdef floating *target = &z[0, 0, 0, 0]
    for chunk in prange(
        (blocks + CHUNK_BLOCKS - 1) // CHUNK_BLOCKS, nogil=True, num_threads=num_threads, schedule="static"
    ):
        block_dct_chunk(
            isa, source, target, columns, chunk * CHUNK_BLOCKS,
            min(CHUNK_BLOCKS, blocks - chunk * CHUNK_BLOCKS)
        )


def inverse(
    const floating[:, :, :, ::1] z,   # IN   (P, H/8, W/8, 64) coefficients, natural order
    floating[:, :, ::1] x,            # OUT  (P, H, W) planes
    int isa,
    int num_threads,
):
    """Inverse of `forward`, and its gradient."""
    cdef Py_ssize_t chunk, columns = z.shape[2], blocks = z.shape[0] * z.shape[1] * columns
    if blocks == 0:
        return
    cdef const floating *source = &z[0, 0, 0, 0]
    cdef floating *target = &x[0, 0, 0]
    for chunk in prange(
        (blocks + CHUNK_BLOCKS - 1) // CHUNK_BLOCKS, nogil=True, num_threads=num_threads, schedule="static"
    ):
        block_idct_chunk(
            isa, source, target, columns, chunk * CHUNK_BLOCKS,
            min(CHUNK_BLOCKS, blocks - chunk * CHUNK_BLOCKS)
        )
