# A convolution prepared once, its C++ side, and the sweep itself for other families: compiled once, here.
cdef extern from "cpc/task.h" namespace "jsc" nogil:
    cdef cppclass CpcTask[T]:
        pass


cdef extern from "cpc/forward.h" namespace "jsc" nogil:
    cdef struct CpcFields:
        Py_ssize_t N, C, H, W, K, Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw, Oh, Ow
        Py_ssize_t vectors, block
        size_t weight, bias

    cdef cppclass CpcCall[T]:
        const T *x
        T *out
        char *scratch

    cdef cppclass CpcConvolution[T]:
        CpcConvolution(const CpcFields &, Py_ssize_t band_rows, Py_ssize_t threads)
        Py_ssize_t threads
        Py_ssize_t scratch_bytes()
        Py_ssize_t rounds()
        Py_ssize_t tasks(Py_ssize_t round)
        void run(int isa, Py_ssize_t round, Py_ssize_t index, int thread, const CpcCall[T] &call)


cdef class Convolution:
    cdef CpcFields fields
    cdef bint is_double
    cdef int isa


cdef void band_float(int isa, int V, const CpcTask[float] *task) noexcept nogil
cdef void band_double(int isa, int V, const CpcTask[double] *task) noexcept nogil
