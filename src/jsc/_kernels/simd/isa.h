// One source, three instruction sets.
//
// A kernel is a struct with an always-inline template `run<I>(...)`, where I (Base, Avx2, Avx512)
// says how many bytes a vector has. `dispatch<Kernel>(isa, ...)` calls the copy compiled for that
// instruction set: the template is inlined into a thin function that carries the target attribute,
// in a file that is itself compiled at the ABI floor, so that one binary runs on every machine.
//
//   struct Scale { template <class I> JSC_INLINE void run(long n, float s, float *x) { ... } };
//   dispatch<Scale>(isa, n, s, x);
//
// Rules: everything `run` calls is JSC_INLINE (an out-of-line helper would be compiled at the floor),
// arguments are scalars and pointers, and a call covers a strip of work, never a single element.
// The FMA of Avx2 and Avx512 rounds once where Base rounds twice: those two agree bit for bit when
// the order of additions does not depend on the number of lanes; Base agrees to rounding.
#pragma once
#include <cstddef>
#include <cstdint>

// Where vectors are not to be touched by inline assembly: emulate.h. Clang compiles that only in functions
// which carry the target attribute themselves; its kernels are slower, and it has no tiles.
#if defined(JSC_EMULATE) || defined(__clang__)
#define JSC_PLAIN
#endif

#define JSC_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#define JSC_TARGET_AVX2 __attribute__((target("avx2,fma,bmi,bmi2,lzcnt,popcnt")))
#if defined(JSC_EMULATE)  // emulate.h
#define JSC_TARGET_AVX512 JSC_TARGET_AVX2
#elif defined(__clang__)  // does not know the last word below, and would ignore all of them
#define JSC_TARGET_AVX512                                                                                    \
    __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi,bmi2,lzcnt,popcnt")))
#else
#define JSC_TARGET_AVX512                                                                                    \
    __attribute__((target(                                                                                   \
        "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi,bmi2,lzcnt,popcnt,prefer-vector-width=512")))
#endif
#endif

namespace jsc {

struct Base {
    static constexpr int bytes = 16;
};
struct Avx2 {
    static constexpr int bytes = 32;
};
struct Avx512 {
    static constexpr int bytes = 64;
};

#if defined(JSC_EMULATE)
constexpr bool emulated = true;
#else
constexpr bool emulated = false;
#endif

enum IsaLevel { ISA_BASE = 0, ISA_AVX2 = 1, ISA_AVX512 = 2 };

inline int supported_isa() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
#if defined(JSC_EMULATE)
    bool avx512 = avx2;
#else
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
#endif
    return avx512 ? ISA_AVX512 : avx2 ? ISA_AVX2 : ISA_BASE;
#else
    return ISA_BASE;
#endif
}

// AMX tiles with bfloat16 products. The tiles' 8 kB of state are a
// process's only after it has asked Linux for them; the answer is no where a signal stack is too small.
inline bool supported_amx() {
#if defined(JSC_EMULATE)
    return supported_isa() == ISA_AVX512;
#elif defined(__x86_64__) && defined(__linux__) && defined(SYS_arch_prctl) && !defined(__clang__)
    constexpr long request_permission = 0x1023, tile_data = 18;
    constexpr unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24;
    unsigned a, b, c, d;
    if (supported_isa() < ISA_AVX512) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & amx_bf16) || !(d & amx_tile)) return false;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}

// AVX-512 that rounds to bfloat16 and multiplies pairs of it.
inline bool supported_bf16() {
#if defined(JSC_EMULATE)
    return supported_isa() == ISA_AVX512;
#elif defined(__x86_64__) && !defined(__clang__)
    constexpr unsigned avx512_bf16 = 1u << 5;
    unsigned a, b, c, d;
    return supported_isa() == ISA_AVX512 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & avx512_bf16);
#else
    return false;
#endif
}

#if defined(__x86_64__)
template <class Kernel, class... Args>
JSC_TARGET_AVX512 __attribute__((noinline)) void run_avx512(Args... args) {
    Kernel::template run<Avx512>(args...);
}
template <class Kernel, class... Args>
JSC_TARGET_AVX2 __attribute__((noinline)) void run_avx2(Args... args) {
    Kernel::template run<Avx2>(args...);
}
#endif
template <class Kernel, class... Args>
__attribute__((noinline)) void run_base(Args... args) {
    Kernel::template run<Base>(args...);
}

// From inside a kernel: the copy of another for the same instruction set, as a function of its own. An inner
// loop that needs all registers gets them there; inlined into much other code, GCC keeps some in memory.
template <class I, class Kernel, class... Args>
JSC_INLINE void call_apart(Args... args) {
#if defined(__x86_64__)
    if constexpr (I::bytes == 64) return run_avx512<Kernel>(args...);
    if constexpr (I::bytes == 32) return run_avx2<Kernel>(args...);
#endif
    if constexpr (I::bytes == 16) run_base<Kernel>(args...);
}

template <class Kernel, class... Args>
inline void dispatch(int isa, Args... args) {
#if defined(__x86_64__)
    if (isa >= ISA_AVX512) return run_avx512<Kernel>(args...);
    if (isa == ISA_AVX2) return run_avx2<Kernel>(args...);
#endif
    run_base<Kernel>(args...);
}

}  // namespace jsc
