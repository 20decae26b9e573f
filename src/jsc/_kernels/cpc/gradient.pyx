"""Gradients of the CPC family over the non-zeros of one map; packing of weights; densities.

S is the map whose non-zeros are taken, D the other one; layouts and numerics are those of
cpc/nonzeros.h, rounds and tasks those of cpc/gradient.h.
"""

from cython cimport floating
from cython.parallel cimport parallel, prange, threadid

cdef extern from "cpc/gradient.h" namespace "jsc" nogil:
    cdef struct GradFields:
        Py_ssize_t N, Cs, H, W, Cd, Hd, Wd, Kh, Kw, top, left
        Py_ssize_t image_step, row_step, turned
        Py_ssize_t rows, group, units, ranges
        Py_ssize_t vectors, block
        size_t S_offset, D_offset, pairs

    cdef struct GradSteps:
        Py_ssize_t s, d, i, j

    cdef cppclass GradCall[T]:
        const T *S
        const T *D
        const T *weight
        T *input_grad
        T *weight_grad
        GradSteps weight_steps, weight_grad_steps
        char *scratch

    cdef cppclass GradConvolution[T]:
        GradConvolution(const GradFields &, bint input_wanted, bint weight_wanted, Py_ssize_t threads)
        Py_ssize_t threads
        Py_ssize_t scratch_bytes()
        void begin(const GradCall[T] &call)
        Py_ssize_t rounds()
        Py_ssize_t tasks(Py_ssize_t round)
        void run(int isa, Py_ssize_t round, Py_ssize_t index, int thread, const GradCall[T] &call)
        bint end(const GradCall[T] &call)

cdef extern from "cpc/gradient_weight.h" namespace "jsc" nogil:
    cdef struct GradKernel:
        Py_ssize_t Cd, Kh, Kw, VL, turned, s_step, d_step, i_step, j_step
    bint grad_pack_sweep[T](
        const GradKernel *k, Py_ssize_t channels, Py_ssize_t filters, Py_ssize_t row, const T *weight,
        T *packed,
    )
    void grad_count[T](int isa, const T *x, Py_ssize_t n, Py_ssize_t *count)


cdef class Gradient:
    """The gradients of one shape: a call has addresses only.

    fields: those of GradFields (cpc/gradient.h) by name; a missing one is an error. Whoever makes it keeps
    the memory that they are addresses of.
    """

    cdef GradFields fields
    cdef bint is_double
    cdef int isa

    def __init__(self, bint is_double, dict fields, int isa):
        self.fields = fields
        self.is_double = is_double
        self.isa = isa

    def scratch_bytes(self, bint input_wanted, bint weight_wanted, int num_threads):
        """Scratch of a call."""
        cdef bint x = input_wanted, w = weight_wanted
        if self.is_double:
            return GradConvolution[double](self.fields, x, w, num_threads).scratch_bytes()
        return GradConvolution[float](self.fields, x, w, num_threads).scratch_bytes()

    def __call__(
        self,
        size_t S, size_t D,      # IN   addresses of the maps
        size_t weight,           # IN   address of element (0, 0, 0, 0), or 0 where input_grad is
        dict weight_steps,       # GradSteps: from one channel of S, of D, row, column to the next
        size_t input_grad,       # OUT  address, laid out as S, or 0; only where S is not zero, zero elsewhere
        size_t weight_grad,      # OUT  address of element (0, 0, 0, 0), or 0
        dict weight_grad_steps,
        size_t scratch,          # SCRATCH address of scratch_bytes(), aligned to 64
        int num_threads,
    ):
        """Both gradients; returns whether S, D and weights are finite (else neither is to be used)."""
        cdef bint x = input_grad != 0, w = weight_grad != 0
        if self.is_double:
            return convolve(
                GradConvolution[double](self.fields, x, w, num_threads), self.isa,
                <const double *>S, D, weight, weight_steps,
                input_grad, weight_grad, weight_grad_steps, scratch,
            )
        return convolve(
            GradConvolution[float](self.fields, x, w, num_threads), self.isa,
            <const float *>S, D, weight, weight_steps,
            input_grad, weight_grad, weight_grad_steps, scratch,
        )


cdef bint convolve(
    const GradConvolution[floating] &c, int isa, const floating *S, size_t D, size_t weight,
    dict weight_steps, size_t input_grad, size_t weight_grad, dict weight_grad_steps, size_t scratch,
) except -1:
    cdef GradCall[floating] call
    cdef Py_ssize_t round = 0, index
    call.S, call.D, call.weight = S, <const floating *>D, <const floating *>weight
    call.input_grad, call.weight_grad = <floating *>input_grad, <floating *>weight_grad
    call.weight_steps, call.weight_grad_steps = weight_steps, weight_grad_steps
    call.scratch = <char *>scratch
    c.begin(call)
    with nogil, parallel(num_threads=<int>c.threads):
        for round in range(c.rounds()):
            for index in prange(c.tasks(round), schedule="dynamic"):
                c.run(isa, round, index, threadid(), call)
    return c.end(call)


def pack_sweep(
    size_t weight,                       # IN   address of element (0, 0, 0, 0)
    floating[:, :, :, :, :, ::1] packed,  # OUT  (blocks of D, sets of S, Kh, 64, Kw, VL)
    Py_ssize_t Cs,
    dict kernel,                         # GradKernel (cpc/gradient_weight.h) by name
    int num_threads,
):
    """Weights in the layout of cpc/sweep.h, S its input and D its output; returns whether they are finite."""
    cdef GradKernel k = kernel
    cdef Py_ssize_t sets = packed.shape[1], index, b, s, row, bad = 0
    for index in prange(
        packed.shape[0] * sets * k.Kh, nogil=True, num_threads=num_threads, schedule="static"
    ):
        row = index % k.Kh
        s = index // k.Kh % sets
        b = index // k.Kh // sets
        bad += not grad_pack_sweep(
            &k, min(64, Cs - s * 64), min(k.VL, k.Cd - b * k.VL), row,
            <const floating *>weight + s * 64 * k.s_step + b * k.VL * k.d_step, &packed[b, s, row, 0, 0, 0],
        )
    return bad == 0


def count(
    size_t x,                            # IN   address of (rows, length)
    floating like,
    Py_ssize_t rows, Py_ssize_t length, Py_ssize_t every,
    int isa,
):
    """Elements that are not zero in every `every`-th row."""
    cdef Py_ssize_t row, found = 0
    with nogil:
        for row in range((rows + every - 1) // every):
            grad_count(isa, <const floating *>x + row * every * length, length, &found)
    return found
