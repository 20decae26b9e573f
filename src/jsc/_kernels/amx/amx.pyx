"""amx family: dense convolution on AMX tiles, from sums of one to three bfloat16 numbers.

Layouts and numerics are those of amx/product.h, rounds and tasks those of amx/convolution.h.
"""

from cython.parallel cimport parallel, prange, threadid


cdef class Convolution:
    """A convolution whose sizes and weights are known: a call has addresses only.

    fields: those of AmxFields (amx/convolution.h) by name; a missing one is an error. Whoever makes it keeps
    the memory that they are addresses of.
    """

    def __init__(self, dict fields):
        cdef AmxFields f = fields
        self.convolution = AmxConvolution(f)
        self.offset.resize(max(1, self.convolution.steps()))
        self.convolution.place_steps(self.offset.data())
        self.convolution.offset = self.offset.data()

    @property
    def steps(self):
        return self.convolution.steps()

    @property
    def common_bytes(self):
        """Of the scratch: what all threads share."""
        return self.convolution.common_bytes()

    def scratch_bytes(self, int num_threads):
        """Scratch of a call."""
        return self.convolution.common_bytes() + num_threads * self.convolution.own_bytes()

    def __call__(
        self,
        size_t x,           # IN   address of (N, H, W, C) with `x_pitch` elements from a pixel to the next
        size_t out,         # OUT  address of (N, Oh, Ow, K) with `out_pitch`
        size_t scratch,     # SCRATCH address of scratch_bytes(), aligned to 64
        int num_threads,
    ):
        """True if it has convolved; False if the input has a number that three bfloat16 cannot sum up to."""
        cdef AmxConvolution c = self.convolution
        cdef AmxCall call
        cdef Py_ssize_t round = 0, index
        call.x, call.out = <const char *>x, <char *>out
        call.common = <char *>scratch
        call.own = call.common + c.common_bytes()
        c.share_out(num_threads)
        if c.rounds() == 0:
            return True
        c.begin(call)
        with nogil, parallel(num_threads=num_threads):
            amx_begin()
            for round in range(c.rounds()):
                for index in prange(c.tasks(round), schedule="dynamic"):
                    c.run(round, index, threadid(), call)
            amx_end()
        return c.end(call)
