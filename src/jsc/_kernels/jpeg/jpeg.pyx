"""JPEG family: the whole layer in one pass over the image, and its gradients in another.

Plain settings (jpeg.h) share out chunks of blocks among threads, the others (bands.h) bands of blocks.
Every pixel has one owner, and table gradients are partial sums of chunks, added in their
order.
"""

from cython cimport floating
from cython.parallel cimport prange, threadid
from libc.stdint cimport uint32_t

cdef extern from "jpeg/jpeg.h" namespace "jsc" nogil:
    const Py_ssize_t CHUNK_BLOCKS
    cdef struct JpegCall:
        Py_ssize_t height, width, image_step, channel_step, row_step, column_step
        int channels, v, u, rounds, zero, bytes, draws
        const void *colours
        const void *tables
        const void *drawn
        uint32_t seed[2]
        void choose_depth() noexcept nogil
        bint plain()
        Py_ssize_t blocks()
        Py_ssize_t bands()
        Py_ssize_t deep()
        Py_ssize_t scratch_numbers(bint backward, int size)
    void jpeg_chunk[T](
        int isa, const JpegCall *call, const void *x, T *y, Py_ssize_t first, Py_ssize_t count
    )
    void jpeg_chunk_backward[T](
        int isa, const JpegCall *call, const T *g, const void *x, T *dx, Py_ssize_t first,
        Py_ssize_t count, int wanted, T *memory, double *partial
    )

cdef extern from "jpeg/bands.h" namespace "jsc" nogil:
    void jpeg_bands[T](
        int isa, const JpegCall *call, const void *x, T *y, Py_ssize_t image, Py_ssize_t first,
        Py_ssize_t end, T *memory
    )
    void jpeg_bands_backward[T](
        int isa, const JpegCall *call, const T *g, const void *x, T *dx, Py_ssize_t image,
        Py_ssize_t first, Py_ssize_t end, int wanted, T *memory, double *partial
    )

cdef enum:
    UNIT_ROWS = 8  # of an image that are one chunk of bands' gradients, at most, or one band


cdef JpegCall described(
    Py_ssize_t channels, Py_ssize_t height, Py_ssize_t width, int v, int u, bint zero, bint draws,
    Py_ssize_t rounds
) noexcept nogil:
    cdef JpegCall call
    call.channels, call.height, call.width = <int>channels, height, width
    call.v, call.u, call.zero, call.rounds = v, u, zero, <int>rounds
    call.choose_depth()
    call.bytes, call.draws = 0, draws
    call.image_step = call.channel_step = call.row_step = call.column_step = 0
    call.colours = call.tables = call.drawn = NULL
    call.seed[0] = call.seed[1] = 0
    return call


def scratch_numbers(
    Py_ssize_t channels, Py_ssize_t height, Py_ssize_t width, int v, int u, bint zero, bint draws,
    Py_ssize_t rounds, bint backward, int size
):
    """Numbers of `size` bytes of scratch that a thread needs for images of this size."""
    cdef JpegCall call = described(channels, height, width, v, u, zero, draws, rounds)
    return call.scratch_numbers(backward, size)


cdef const void *source(
    JpegCall *call, const floating[:, :, :, ::1] x, const unsigned char[:, :, :, :] pixels
):
    """Where the images are, and how far apart 8-bit numbers."""
    if pixels is None:
        return &x[0, 0, 0, 0]
    call.bytes, call.image_step, call.channel_step = 1, pixels.strides[0], pixels.strides[1]
    call.row_step, call.column_step = pixels.strides[2], pixels.strides[3]
    return &pixels[0, 0, 0, 0]


cdef Py_ssize_t pieces_of(const JpegCall *call) noexcept:
    """Chunks of an image in bands."""
    cdef Py_ssize_t most = max(1, UNIT_ROWS // call.deep())
    return max(1, (call.bands() + most - 1) // most)


def gradient_chunks(
    Py_ssize_t n, Py_ssize_t channels, Py_ssize_t height, Py_ssize_t width, int v, int u, bint zero,
    bint draws
):
    """Chunks of `backward`: they do not depend on the number of threads."""
    cdef JpegCall call = described(channels, height, width, v, u, zero, draws, 1)
    if call.plain():
        return (n * call.blocks() + CHUNK_BLOCKS - 1) // CHUNK_BLOCKS
    return n * pieces_of(&call)


def forward(
    const floating[:, :, :, ::1] x,   # IN   (N, C, H, W), C = 1 or 3; empty where there are `pixels`
    const unsigned char[:, :, :, :] pixels,  # IN   the same in 8 bits, of any strides, or None
    const floating[:, ::1] colours,   # IN   (4, 12) x -> planes, planes -> y, and the transposes
    const floating[:, :, :, ::1] tables,  # IN   (rounds, 1 or 2, 64, ENTRY_SIZE) from quant.prepare
    floating[:, :, :, ::1] y,         # OUT  (N, C, H, W)
    floating[:, ::1] scratch,         # OUT  (threads, scratch_numbers)
    int v, int u,                     # pixels to a sample of chroma, downwards and across
    bint zero,                        # whether padding is mid-grey
    bint draws,                       # whether levels are drawn
    unsigned long long seed,          # that they are drawn by
    int isa,
    int num_threads,
):
    """Colour transform, DCT, quantiser, and back."""
    cdef Py_ssize_t n = y.shape[0], task, pieces, bands, blocks
    cdef JpegCall call = described(y.shape[1], y.shape[2], y.shape[3], v, u, zero, draws, tables.shape[0])
    if n * call.height * call.width == 0:
        return
    cdef const void *images = source(&call, x, pixels)
    call.colours, call.tables = &colours[0, 0], &tables[0, 0, 0, 0]
    call.drawn = call.tables
    call.seed[0], call.seed[1] = <uint32_t>seed, <uint32_t>(seed >> 32)
    cdef floating *target = &y[0, 0, 0, 0]
    if call.plain():
        blocks = n * call.blocks()
        for task in prange(
            (blocks + CHUNK_BLOCKS - 1) // CHUNK_BLOCKS, nogil=True, num_threads=num_threads,
            schedule="static"
        ):
            jpeg_chunk(
                isa, &call, images, target, task * CHUNK_BLOCKS,
                min(CHUNK_BLOCKS, blocks - task * CHUNK_BLOCKS)
            )
        return
    # A piece of an image computes the chroma around it again: no more pieces than threads can use.
    bands = call.bands()
    pieces = 1
    if n < 4 * num_threads and num_threads > 1:
        pieces = min(bands, (4 * num_threads + n - 1) // n)
    for task in prange(n * pieces, nogil=True, num_threads=num_threads, schedule="static"):
        jpeg_bands(
            isa, &call, images, target, task // pieces, task % pieces * bands // pieces,
            (task % pieces + 1) * bands // pieces, &scratch[threadid(), 0]
        )


def backward(
    const floating[:, :, :, ::1] g,   # IN   (N, C, H, W) gradient of y
    const floating[:, :, :, ::1] x,   # IN   as for `forward`
    const unsigned char[:, :, :, :] pixels,
    const floating[:, ::1] colours,   # IN   (4, 12)
    const floating[:, :, :, ::1] tables,  # IN   (rounds, 1 or 2, 64, ENTRY_SIZE) for the derivatives
    const floating[:, :, :, ::1] drawn,   # IN   the same as they were drawn with
    floating[:, :, :, ::1] dx,        # OUT  (N, C, H, W), untouched (any size) unless wanted
    double[:, ::1] partial,           # OUT  (gradient_chunks, rounds * tables * 128) scratch
    floating[:, ::1] dq,              # OUT  (rounds * tables, 64) at constant kappa, added to
    floating[:, ::1] dkappa,          # OUT  (rounds * tables, 64), added to
    floating[:, ::1] scratch,         # OUT  (threads, scratch_numbers)
    int v, int u, bint zero, bint draws, unsigned long long seed,
    int wanted,                       # 1 gradient of x, 2 of the tables, 3 both
    int isa,
    int num_threads,
):
    """Gradients of `forward`; the coefficients are computed again from x."""
    cdef Py_ssize_t n = g.shape[0], tasks, task, pieces, bands, blocks
    cdef JpegCall call = described(g.shape[1], g.shape[2], g.shape[3], v, u, zero, draws, tables.shape[0])
    if n * call.height * call.width == 0 or wanted == 0:
        return
    cdef const void *images = source(&call, x, pixels)
    call.colours, call.tables, call.drawn = &colours[0, 0], &tables[0, 0, 0, 0], &drawn[0, 0, 0, 0]
    call.seed[0], call.seed[1] = <uint32_t>seed, <uint32_t>(seed >> 32)
    cdef const floating *upstream = &g[0, 0, 0, 0]
    cdef floating *target = &dx[0, 0, 0, 0] if wanted & 1 else NULL
    if call.plain():
        blocks = n * call.blocks()
        tasks = (blocks + CHUNK_BLOCKS - 1) // CHUNK_BLOCKS
        for task in prange(tasks, nogil=True, num_threads=num_threads, schedule="static"):
            jpeg_chunk_backward(
                isa, &call, upstream, images, target, task * CHUNK_BLOCKS,
                min(CHUNK_BLOCKS, blocks - task * CHUNK_BLOCKS), wanted, &scratch[threadid(), 0],
                &partial[task, 0]
            )
    else:
        bands, pieces = call.bands(), pieces_of(&call)
        tasks = n * pieces
        for task in prange(tasks, nogil=True, num_threads=num_threads, schedule="static"):
            jpeg_bands_backward(
                isa, &call, upstream, images, target, task // pieces,
                task % pieces * bands // pieces, (task % pieces + 1) * bands // pieces, wanted,
                &scratch[threadid(), 0], &partial[task, 0]
            )
    if not wanted & 2:
        return
    cdef Py_ssize_t i, t
    for task in range(1, tasks):
        for i in range(partial.shape[1]):
            partial[0, i] += partial[task, i]
    for t in range(dq.shape[0]):
        for i in range(64):
            dq[t, i] += <floating>partial[0, 128 * t + 2 * i]
            dkappa[t, i] += <floating>partial[0, 128 * t + 2 * i + 1]
