"""What this machine and this build can do. No kernel is here."""

cdef extern from "simd/isa.h" namespace "jsc" nogil:
    int c_supported_isa "jsc::supported_isa"()
    bint c_supported_amx "jsc::supported_amx"()
    bint c_supported_bf16 "jsc::supported_bf16"()
    const bint c_emulated "jsc::emulated"

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    static int jsc_openmp_version(void) { return _OPENMP; }
    static int jsc_in_parallel(void) { return omp_in_parallel(); }
    #else
    static int jsc_openmp_version(void) { return 0; }
    static int jsc_in_parallel(void) { return 0; }
    #endif
    #if defined(__clang__)
    #define JSC_COMPILER __VERSION__
    #elif defined(__GNUC__)
    #define JSC_COMPILER "GCC " __VERSION__
    #else
    #define JSC_COMPILER "unknown"
    #endif
    """
    int jsc_openmp_version()
    int jsc_in_parallel()
    const char *JSC_COMPILER


def supported_isa():
    """Widest instruction set of this CPU: 0 baseline, 1 AVX2 + FMA, 2 AVX-512 (F, VL, BW, DQ)."""
    return c_supported_isa()


def supported_amx():
    """True where AMX tiles multiply bfloat16 and the system lets this process use them."""
    return c_supported_amx()


def supported_bf16():
    """True where AVX-512 multiplies pairs of bfloat16."""
    return c_supported_bf16()


def emulated():
    """True in a build for tests whose AVX-512 and AMX are plain C++ (JSC_EMULATE=1, simd/emulate.h)."""
    return bool(c_emulated)


def openmp_version():
    """The `_OPENMP` date the kernels were compiled with (201511 = OpenMP 4.5), 0 without OpenMP."""
    return jsc_openmp_version()


def compiler():
    """The compiler of these kernels and its version: "GCC 12.2.0"."""
    return JSC_COMPILER.decode()


def in_parallel():
    """True inside an OpenMP parallel region, where a kernel must not open another."""
    return bool(jsc_in_parallel())
