"""JPEG family: the whole layer in one pass over the image, and its gradients in another.

Chunks of blocks are shared out among threads; every pixel has one owner, and table gradients are
partial sums of chunks, added in the order of the chunks.
"""

from cython cimport floating
from cython.parallel cimport prange

cdef extern from "jpeg/jpeg.h" namespace "jsc" nogil:
    const Py_ssize_t CHUNK "jsc::CHUNK_BLOCKS"
    void jpeg_chunk[T](
        int isa, const T *x, T *y, Py_ssize_t channels, Py_ssize_t height, Py_ssize_t width,
        Py_ssize_t first, Py_ssize_t count, const T *colours, const T *tables
    )
    void jpeg_chunk_backward[T](
        int isa, const T *g, const T *x, T *dx, Py_ssize_t channels, Py_ssize_t height, Py_ssize_t width,
        Py_ssize_t first, Py_ssize_t count, const T *colours, const T *tables, int wanted, double *partial
    )

CHUNK_BLOCKS = CHUNK


def forward(
    const floating[:, :, :, ::1] x,   # IN   (N, C, H, W), C = 1 or 3, any H and W
    const floating[:, ::1] colours,   # IN   (4, 12) x -> planes, planes -> y, and the transposes
    const floating[:, :, ::1] tables,  # IN   (1 or 2, 64, ENTRY_SIZE) from quant.prepare; two if C = 3
    floating[:, :, :, ::1] y,         # OUT  (N, C, H, W)
    int isa,
    int num_threads,
):
    """Colour transform, DCT, quantiser, and back."""
    cdef Py_ssize_t chunk, channels = x.shape[1], height = x.shape[2], width = x.shape[3]
    cdef Py_ssize_t blocks = x.shape[0] * ((height + 7) // 8) * ((width + 7) // 8)
    if blocks == 0:
        return
    cdef const floating *source = &x[0, 0, 0, 0]
    cdef const floating *colour = &colours[0, 0]
    cdef const floating *table = &tables[0, 0, 0]
    cdef floating *target = &y[0, 0, 0, 0]
    for chunk in prange(
        (blocks + CHUNK - 1) // CHUNK, nogil=True, num_threads=num_threads, schedule="static"
    ):
        jpeg_chunk(
            isa, source, target, channels, height, width, chunk * CHUNK, min(CHUNK, blocks - chunk * CHUNK),
            colour, table
        )


def backward(
    const floating[:, :, :, ::1] g,   # IN   (N, C, H, W) gradient of y
    const floating[:, :, :, ::1] x,   # IN   (N, C, H, W)
    const floating[:, ::1] colours,   # IN   (4, 12)
    const floating[:, :, ::1] tables,  # IN   (1 or 2, 64, ENTRY_SIZE)
    floating[:, :, :, ::1] dx,        # OUT  (N, C, H, W), untouched (any size) unless wanted
    double[:, ::1] partial,           # OUT  (chunks of blocks, tables * 128) scratch, untouched unless wanted
    floating[:, ::1] dq,              # OUT  (1 or 2, 64) at constant kappa, added to
    floating[:, ::1] dkappa,          # OUT  (1 or 2, 64), added to
    int wanted,                       # 1 gradient of x, 2 of the tables, 3 both
    int isa,
    int num_threads,
):
    """Gradients of `forward`; the coefficients are computed again from x."""
    cdef Py_ssize_t chunk, channels = x.shape[1], height = x.shape[2], width = x.shape[3]
    cdef Py_ssize_t blocks = x.shape[0] * ((height + 7) // 8) * ((width + 7) // 8)
    if blocks == 0 or wanted == 0:
        return
    cdef Py_ssize_t entries = 64 if channels == 1 else 128
    cdef const floating *upstream = &g[0, 0, 0, 0]
    cdef const floating *source = &x[0, 0, 0, 0]
    cdef const floating *colour = &colours[0, 0]
    cdef const floating *table = &tables[0, 0, 0]
    cdef floating *target = NULL
    cdef double *sums = NULL
    if wanted & 1:
        target = &dx[0, 0, 0, 0]
    if wanted & 2:
        sums = &partial[0, 0]
    for chunk in prange(
        (blocks + CHUNK - 1) // CHUNK, nogil=True, num_threads=num_threads, schedule="static"
    ):
        jpeg_chunk_backward(
            isa, upstream, source, target, channels, height, width, chunk * CHUNK,
            min(CHUNK, blocks - chunk * CHUNK), colour, table, wanted,
            sums + chunk * 2 * entries if sums else sums
        )
    if not wanted & 2:
        return
    cdef Py_ssize_t i, t
    for chunk in range(1, (blocks + CHUNK - 1) // CHUNK):
        for i in range(2 * entries):
            partial[0, i] += partial[chunk, i]
    for t in range(entries // 64):
        for i in range(64):
            dq[t, i] += <floating>partial[0, 128 * t + 2 * i]
            dkappa[t, i] += <floating>partial[0, 128 * t + 2 * i + 1]
