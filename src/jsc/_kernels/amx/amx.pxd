# A convolution prepared once, and its C++ side.
from libcpp.vector cimport vector


cdef extern from "amx/convolution.h" namespace "jsc" nogil:
    cdef struct AmxFields:
        Py_ssize_t N, C, H, W, K, Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw, Oh, Ow
        Py_ssize_t x_pitch, out_pitch, residual_pitch
        Py_ssize_t x_bytes, out_bytes
        Py_ssize_t chunk, window, column_step, pixel_columns, row_pixels, phases, halo
        Py_ssize_t weight_bytes, band_bytes, shared_bytes
        Py_ssize_t pieces, packed
        size_t weight, bias
        int relu

    cdef cppclass AmxCall:
        const char *x
        char *out
        char *common
        char *own

    cdef cppclass AmxConvolution:
        AmxConvolution()
        AmxConvolution(const AmxFields &)
        const Py_ssize_t *offset
        Py_ssize_t steps()
        void place_steps(Py_ssize_t *to)
        void share_out(Py_ssize_t team)
        Py_ssize_t common_bytes()
        Py_ssize_t own_bytes()
        void begin(const AmxCall &call)
        Py_ssize_t rounds()
        Py_ssize_t tasks(Py_ssize_t round)
        void run(Py_ssize_t round, Py_ssize_t index, int thread, const AmxCall &call)
        bint end(const AmxCall &call)

    void amx_begin()
    void amx_end()


cdef class Convolution:
    cdef AmxConvolution convolution
    cdef vector[Py_ssize_t] offset
