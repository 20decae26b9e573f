"""Winograd's transforms: weights packed, and for training the gradient of the weights.

The convolution itself, forward and for the gradient of the input, is the instruction of
network/winograd.h. Layouts, order of additions and numerics: winograd/pack.h and winograd/gradient.h.
"""

from cython.parallel cimport parallel, prange, threadid

cdef extern from "winograd/pack.h" namespace "jsc" nogil:
    cdef struct WinogradPackFields:
        Py_ssize_t K, C, mv, mh, vectors, k_step, c_step, i_step, j_step
    void winograd_pack(
        int isa, const WinogradPackFields *f, const void *weight, bint doubles, Py_ssize_t k0,
        float *transformed, float *plain,
    )

cdef extern from "winograd/gradient.h" namespace "jsc" nogil:
    cdef struct WinogradGradFields:
        Py_ssize_t N, C, H, W, K, Oh, Ow, Ph, Pw, mv, mh, vectors, blocks, tiles, ranges
    cdef cppclass WinogradGradCall:
        const float *x
        const float *grad
        float *weight_grad
        Py_ssize_t k_step, c_step, i_step, j_step
        char *scratch
    cdef cppclass Kernel "jsc::WinogradGradient":
        Kernel(const WinogradGradFields &, Py_ssize_t lanes)
        Py_ssize_t rounds()
        Py_ssize_t tasks(Py_ssize_t round)
        Py_ssize_t scratch_bytes(Py_ssize_t threads)
        void run(
            int isa, Py_ssize_t round, Py_ssize_t index, Py_ssize_t thread, Py_ssize_t threads,
            const WinogradGradCall &call,
        )
        bint end(const WinogradGradCall &call, Py_ssize_t threads)


def pack(
    size_t weight,       # IN   address of the first element
    bint doubles,        # what they are, or else floats
    size_t transformed,  # OUT  address of (blocks, positions, C, V lanes)
    size_t plain,        # OUT  address of (vectors, 3, 3, C, lanes)
    dict fields,         # WinogradPackFields (winograd/pack.h) by name
    int isa, int num_threads,
):
    """Weights in the layouts of network/winograd.h."""
    cdef WinogradPackFields f = fields
    cdef Py_ssize_t lanes = (4, 8, 16)[isa], width = f.vectors * lanes
    cdef Py_ssize_t positions = (f.mv + 2) * (f.mh + 2), blocks = (f.K + width - 1) // width, b
    for b in prange(blocks, nogil=True, num_threads=num_threads, schedule="static"):
        winograd_pack(
            isa, &f, <const void *>weight, doubles, b * width,
            <float *>transformed + b * width * positions * f.C, <float *>plain + b * width * 9 * f.C,
        )


cdef class Gradient:
    """The gradient of the weights, for one geometry: a call has addresses only.

    fields: those of WinogradGradFields (winograd/gradient.h) by name; a missing one is an error.
    """

    cdef WinogradGradFields fields
    cdef int isa
    cdef Py_ssize_t lanes

    def __init__(self, dict fields, int isa):
        self.fields = fields
        self.isa = isa
        self.lanes = (4, 8, 16)[isa]

    def scratch_bytes(self, int num_threads):
        """Scratch of a call."""
        return Kernel(self.fields, self.lanes).scratch_bytes(num_threads)

    def __call__(
        self,
        size_t x, size_t grad,   # IN   addresses of (N, H, W, C) and (N, Oh, Ow, K)
        size_t weight_grad,      # OUT  address of element (0, 0, 0, 0)
        tuple steps,             # of the output, in floats: filter, channel, row, column
        size_t scratch,          # SCRATCH address of scratch_bytes(), aligned to 64
        int num_threads,
    ):
        """Returns whether the gradient is finite (else it is not to be used)."""
        cdef WinogradGradCall call
        call.x, call.grad = <const float *>x, <const float *>grad
        call.weight_grad = <float *>weight_grad
        call.k_step, call.c_step, call.i_step, call.j_step = steps
        call.scratch = <char *>scratch
        return run(Kernel(self.fields, self.lanes), self.isa, num_threads, call)


cdef bint run(
    const Kernel &kernel, int isa, int num_threads, const WinogradGradCall &call
) except -1:
    cdef Py_ssize_t round = 0, index
    with nogil, parallel(num_threads=num_threads):
        for round in range(kernel.rounds()):
            for index in prange(kernel.tasks(round), schedule="dynamic"):
                kernel.run(isa, round, index, threadid(), num_threads, call)
    return kernel.end(call, num_threads)
