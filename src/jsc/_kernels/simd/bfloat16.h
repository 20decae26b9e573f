// bfloat16 on AVX-512 (its extension BF16): conversion, and dot products of pairs that add to float32.
//
// Denormals count as zero, on both sides. Written as inline assembly for the reason given in simd.h; only
// where `supported_bf16` says yes.
#pragma once
#include <cstring>

#include "simd/simd.h"

namespace jsc {

typedef uint16_t Bfloat32 __attribute__((vector_size(64), aligned(2), may_alias));
typedef uint16_t Bfloat16 __attribute__((vector_size(32), aligned(2), may_alias));
using Floats16 = Vec<Avx512, float>;

#if defined(JSC_PLAIN)
// The nearest bfloat16, ties to even; NaN stays NaN, a denormal is zero.
inline uint16_t emulate_to_bfloat16(float number) {
    uint32_t bits;
    memcpy(&bits, &number, 4);
    const uint32_t exponent = bits >> 23 & 0xff;
    if (exponent == 0) return (uint16_t)(bits >> 16 & 0x8000);
    if (exponent == 0xff) return (uint16_t)(bits >> 16 | (bits & 0x7fffff ? 0x40 : 0));
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float emulate_of_bfloat16(uint32_t high_bits) {
    if (!(high_bits & 0x7f800000)) high_bits &= 0x80000000;
    float value;
    memcpy(&value, &high_bits, 4);
    return value;
}
#endif

// 32 numbers in their order.
JSC_INLINE Bfloat32 to_bfloat16(Floats16 low, Floats16 high) {
    Bfloat32 result = {};
#if defined(JSC_PLAIN)
    for (int i = 0; i < 16; i++)
        result[i] = emulate_to_bfloat16(low[i]), result[16 + i] = emulate_to_bfloat16(high[i]);
#elif defined(__x86_64__)
    asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(result) : "v"(low), "v"(high));
#endif
    return result;
}
JSC_INLINE Bfloat16 to_bfloat16(Floats16 v) {
    Bfloat16 result = {};
#if defined(JSC_PLAIN)
    for (int i = 0; i < 16; i++) result[i] = emulate_to_bfloat16(v[i]);
#elif defined(__x86_64__)
    asm("vcvtneps2bf16 %1, %0" : "=v"(result) : "v"(v));
#endif
    return result;
}

// Two bfloat16 in all lanes; as integers, because arithmetic would change some of the bits.
JSC_INLINE Floats16 broadcast_pair(const float *x) {
    uint32_t pair;
    memcpy(&pair, x, 4);
    return (Floats16)(Vec<Avx512, uint32_t>{} + pair);
}

// sum[l] + a[2 l + 1] b[2 l + 1], then + a[2 l] b[2 l]; a lane of `a` and `b` is two bfloat16.
JSC_INLINE Floats16 add_pair_products(Floats16 sum, Floats16 a, Floats16 b) {
#if defined(JSC_PLAIN)
    typedef uint32_t Words __attribute__((vector_size(64)));
    const Words left = (Words)a, right = (Words)b;
    for (int l = 0; l < 16; l++) {
        const float odd =
            emulate_of_bfloat16(left[l] & 0xffff0000) * emulate_of_bfloat16(right[l] & 0xffff0000);
        const float even = emulate_of_bfloat16(left[l] << 16) * emulate_of_bfloat16(right[l] << 16);
        sum[l] = sum[l] + odd;
        sum[l] = sum[l] + even;
    }
#elif defined(__x86_64__)
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#endif
    return sum;
}

}  // namespace jsc
