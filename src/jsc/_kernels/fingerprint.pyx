"""fingerprint family: whether a tensor still holds what it held (fingerprint.h)."""

from libc.stdint cimport uint64_t

cdef extern from "fingerprint.h" namespace "jsc" nogil:
    uint64_t c_fingerprint "jsc::fingerprint"(const char *data, size_t bytes, bint whole)


def fingerprint(
    size_t data,   # IN   address of `bytes` bytes
    size_t bytes,
    bint whole,    # read all of them, not only samples
):
    """64 bits made of some dozens of samples, or of everything."""
    return c_fingerprint(<const char *>data, bytes, whole)
