"""Lowering family: the matrices behind the im2col and MEC convolutions (layouts: lowering/lowering.h)."""

from cython cimport floating
from cython.parallel cimport prange

cdef extern from "lowering/lowering.h" namespace "jsc" nogil:
    cdef cppclass LowerShape:
        Py_ssize_t C, H, W, Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw, Oh, Ow
    void lower_row[T](const LowerShape *s, const T *image, Py_ssize_t y, T *to)
    void lower_window[T](const LowerShape *s, const T *image, Py_ssize_t x, T *to)
    void lower_plane[T](const LowerShape *s, const T *plane, Py_ssize_t l, Py_ssize_t q, T *to)


cdef LowerShape shape_of(g, Py_ssize_t C, Py_ssize_t H, Py_ssize_t W):
    cdef LowerShape s
    s.C, s.H, s.W, s.Kh, s.Kw = C, H, W, g.Kh, g.Kw
    s.Sh, s.Sw, s.Ph, s.Pw, s.Dh, s.Dw, s.Oh, s.Ow = g.Sh, g.Sw, g.Ph, g.Pw, g.Dh, g.Dw, g.Oh, g.Ow
    return s


def im2col_rows(
    const floating[:, :, :, ::1] x,   # IN   (N, H, W, C)
    floating[:, ::1] lowered,         # OUT  (N * Oh * Ow, Kh * Kw * C)
    g,                                # ConvGeometry
    int num_threads,
):
    """Every window of channels-last images as a row."""
    cdef LowerShape s = shape_of(g, x.shape[3], x.shape[1], x.shape[2])
    cdef Py_ssize_t row, image = s.H * s.W * s.C, step = s.Ow * s.Kh * s.Kw * s.C
    if lowered.shape[0] * lowered.shape[1] == 0:
        return
    cdef const floating *source = &x[0, 0, 0, 0] if image else NULL
    cdef floating *target = &lowered[0, 0]
    for row in prange(x.shape[0] * s.Oh, nogil=True, num_threads=num_threads, schedule="static"):
        lower_row(&s, source + row // s.Oh * image, row % s.Oh, target + row * step)


def im2col_planes(
    const floating[:, :, ::1] x,      # IN   (C, H, W): one image
    floating[:, ::1] lowered,         # OUT  (Kh * Kw * C, Oh * Ow)
    g,                                # ConvGeometry
    int num_threads,
):
    """Every window of a planar image as a column."""
    cdef LowerShape s = shape_of(g, x.shape[0], x.shape[1], x.shape[2])
    cdef Py_ssize_t row, step = s.Oh * s.Ow
    if lowered.shape[0] * lowered.shape[1] == 0:
        return
    cdef const floating *source = &x[0, 0, 0] if s.H * s.W else NULL
    cdef floating *target = &lowered[0, 0]
    for row in prange(lowered.shape[0], nogil=True, num_threads=num_threads, schedule="static"):
        lower_plane(
            &s, source + row % s.C * s.H * s.W, row // s.C // s.Kw, row // s.C % s.Kw, target + row * step
        )


def mec(
    const floating[:, :, :, ::1] x,   # IN   (N, H, W, C)
    floating[:, :, ::1] lowered,      # OUT  (N, Ow, (H + 2 Ph) * Kw * C)
    g,                                # ConvGeometry
    int num_threads,
):
    """Every horizontal window of channels-last images, over all padded rows."""
    cdef LowerShape s = shape_of(g, x.shape[3], x.shape[1], x.shape[2])
    cdef Py_ssize_t row, image = s.H * s.W * s.C, step = lowered.shape[2]
    if lowered.shape[0] * lowered.shape[1] * step == 0:
        return
    cdef const floating *source = &x[0, 0, 0, 0] if image else NULL
    cdef floating *target = &lowered[0, 0, 0]
    for row in prange(x.shape[0] * s.Ow, nogil=True, num_threads=num_threads, schedule="static"):
        lower_window(&s, source + row // s.Ow * image, row % s.Ow, target + row * step)
