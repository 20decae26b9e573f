"""Quantiser family: soft, windowed and hard quantisation of coefficients, and the gradients.

Data are (O, G, N, P): entry (g, p) of the tables belongs to z[:, g, :, p]. A chunk of rows has one
owner; table gradients are partial sums of chunks, added in the order of the chunks.
"""

from cython cimport floating
from cython.parallel cimport prange

cdef extern from "jpeg/quant.h" namespace "jsc" nogil:
    const long SIZE "jsc::ENTRY_SIZE"
    const Py_ssize_t CHUNK_BLOCKS
    void prepare_entry[T](T q, T kappa, int mode, int window, long levels, T *entry)
    void quantize_rows[T](
        int isa, const T *z, T *y, Py_ssize_t rows, Py_ssize_t period, const T *entries
    )
    void quantize_rows_backward[T](
        int isa, const T *g, const T *z, T *dz, Py_ssize_t rows, Py_ssize_t period, const T *entries,
        double *partial
    )

ENTRY_SIZE = SIZE  # numbers of scratch per table entry


def chunk_rows(Py_ssize_t period):
    """Rows of a chunk: about 4096 numbers, a multiple of 64 rows."""
    return CHUNK_BLOCKS * max(1, 64 // period)


def prepare(
    const floating[:, ::1] q,         # IN   (G, P) steps
    const floating[:, ::1] kappa,     # IN   (G, P) hardness
    floating[:, :, ::1] entries,      # OUT  (G, P, ENTRY_SIZE) what the kernels need to know of them
    int mode,                         # 0 soft, 1 hard, 2 straight-through, 3 sampled
    int window,                       # number of levels, 0 for all
    long levels,                      # saturation, 0 for none
):
    """Constants of every table entry, once per call."""
    cdef Py_ssize_t g, p
    for g in range(q.shape[0]):
        for p in range(q.shape[1]):
            prepare_entry(q[g, p], kappa[g, p], mode, window, levels, &entries[g, p, 0])


def forward(
    const floating[:, :, :, ::1] z,   # IN   (O, G, N, P)
    const floating[:, :, ::1] entries,   # IN   (G, P, ENTRY_SIZE) from `prepare`
    floating[:, :, :, ::1] y,         # OUT  (O, G, N, P)
    int isa,
    int num_threads,
):
    """y = Q(z)."""
    cdef Py_ssize_t G = z.shape[1], N = z.shape[2], P = z.shape[3]
    if z.shape[0] * G * N * P == 0:
        return
    cdef Py_ssize_t task, rows = chunk_rows(P)
    cdef Py_ssize_t chunks = (N + rows - 1) // rows
    cdef const floating *source = &z[0, 0, 0, 0]
    cdef const floating *entry = &entries[0, 0, 0]
    cdef floating *target = &y[0, 0, 0, 0]
    for task in prange(z.shape[0] * G * chunks, nogil=True, num_threads=num_threads, schedule="static"):
        forward_task(isa, source, entry, target, task, G, N, P, rows, chunks)


cdef inline void forward_task(
    int isa, const floating *z, const floating *entries, floating *y,
    Py_ssize_t task, Py_ssize_t G, Py_ssize_t N, Py_ssize_t P, Py_ssize_t rows, Py_ssize_t chunks,
) noexcept nogil:
    cdef Py_ssize_t plane = task // chunks, first = task % chunks * rows
    cdef Py_ssize_t start = (plane * N + first) * P
    quantize_rows(
        isa, z + start, y + start, min(rows, N - first), P, entries + plane % G * P * SIZE
    )


def backward(
    const floating[:, :, :, ::1] g,   # IN   (O, G, N, P) gradient of y
    const floating[:, :, :, ::1] z,   # IN   (O, G, N, P)
    const floating[:, :, ::1] entries,   # IN   (G, P, ENTRY_SIZE) from `prepare`
    floating[:, :, :, ::1] dz,        # OUT  (O, G, N, P)
    double[:, :, :, ::1] partial,     # OUT  (O, G, chunks of N, 2 P) scratch
    floating[:, ::1] dq,              # OUT  (G, P) at constant kappa
    floating[:, ::1] dkappa,          # OUT  (G, P)
    int isa,
    int num_threads,
):
    """Gradients of `forward` in z, q and kappa."""
    cdef Py_ssize_t o, c, p, group, G = z.shape[1], N = z.shape[2], P = z.shape[3]
    if z.shape[0] * G * N * P == 0:
        return
    cdef Py_ssize_t task, rows = chunk_rows(P)
    cdef Py_ssize_t chunks = (N + rows - 1) // rows
    cdef const floating *upstream = &g[0, 0, 0, 0]
    cdef const floating *source = &z[0, 0, 0, 0]
    cdef const floating *entry = &entries[0, 0, 0]
    cdef floating *target = &dz[0, 0, 0, 0]
    cdef double *sums = &partial[0, 0, 0, 0]
    for task in prange(z.shape[0] * G * chunks, nogil=True, num_threads=num_threads, schedule="static"):
        backward_task(isa, upstream, source, entry, target, sums, task, G, N, P, rows, chunks)
    cdef double step, hardness
    for group in range(G):
        for p in range(P):
            step = hardness = 0
            for o in range(z.shape[0]):
                for c in range(chunks):
                    step += partial[o, group, c, 2 * p]
                    hardness += partial[o, group, c, 2 * p + 1]
            dq[group, p] = <floating>step
            dkappa[group, p] = <floating>hardness


cdef inline void backward_task(
    int isa, const floating *g, const floating *z, const floating *entries, floating *dz, double *partial,
    Py_ssize_t task, Py_ssize_t G, Py_ssize_t N, Py_ssize_t P, Py_ssize_t rows, Py_ssize_t chunks,
) noexcept nogil:
    cdef Py_ssize_t plane = task // chunks, first = task % chunks * rows
    cdef Py_ssize_t start = (plane * N + first) * P
    quantize_rows_backward(
        isa, g + start, z + start, dz + start, min(rows, N - first), P, entries + plane % G * P * SIZE,
        partial + task * 2 * P
    )
