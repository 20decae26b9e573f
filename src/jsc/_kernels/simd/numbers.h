// The numbers of a map, to and from float32: themselves, or bfloat16 (as uint16_t), which are widened and
// rounded to the nearest on the way. bfloat16 maps are read and written by kernels for AVX-512 alone.
#pragma once
#include "simd/bfloat16.h"

namespace jsc {

typedef float One __attribute__((vector_size(4)));  // a vector of one lane

template <class F>
JSC_INLINE F load_numbers(const float *x) {
    return load<F>(x);
}
template <class F>
JSC_INLINE F load_numbers(const uint16_t *x) {
    using Bits = typename VectorOf<uint32_t, sizeof(F)>::type;
    using Halves = typename VectorOf<uint16_t, sizeof(F) / 2>::type;
#if defined(__x86_64__) && !defined(JSC_PLAIN)
    if constexpr (sizeof(F) == 64) {  // GCC 12 widens halves of it apart
        Bits bits;
        asm("vpmovzxwd %1, %0" : "=v"(bits) : "m"(*(const Halves *)x));
        return (F)(bits << 16);
    }
#endif
    return (F)(__builtin_convertvector(load<Halves>(x), Bits) << 16);
}
// The first n lanes; nothing behind them is read.
template <class F>
JSC_INLINE F load_partial_numbers(const float *x, int n) {
    return load_partial<F>(x, n);
}
template <class F>
JSC_INLINE F load_partial_numbers(const uint16_t *x, int n) {
    F v = {};
    for (int i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)x[i] << 16;
        memcpy((float *)&v + i, &bits, 4);
    }
    return v;
}

template <class F>
JSC_INLINE void store_numbers(float *to, F v) {
    store(to, v);
}
template <class F>
JSC_INLINE void store_partial_numbers(float *to, F v, int n) {
    store_partial(to, v, n);
}
template <class F>
JSC_INLINE void store_partial_numbers(uint16_t *to, F v, int n) {
    Floats16 all = {};
    for (int i = 0; i < n; i++) all[i] = v[i];
    const Bfloat16 rounded = to_bfloat16(all);
    for (int i = 0; i < n; i++) to[i] = rounded[i];
}
template <class F>
JSC_INLINE void store_numbers(uint16_t *to, F v) {
    if constexpr (sizeof(F) == 64) *(Bfloat16 *)to = to_bfloat16(v);
    else store_partial_numbers(to, v, sizeof(F) / 4);
}

}  // namespace jsc
