// The few instructions that vector extensions cannot say, in plain C++: for clang, and with tiles besides
// for tests on machines that have neither AVX-512 nor AMX (setup.py: JSC_EMULATE=1).
//
// In a build that emulates, the wide path is compiled for AVX2 and FMA, and the compiler takes its 64-byte
// vectors apart; what is inline assembly there is one of the functions below. Results are those of the
// instructions, bit for bit: multiply-adds round once as well, and a tile's product is that of the manual's
// pseudocode,
//
//   sum[m, n] += (chain of a[m, 2 k] b[k, 2 n]) + (chain of a[m, 2 k + 1] b[k, 2 n + 1]),   k = 0, 1, ..
//
// each chain of multiply-adds from zero, every operation rounded to nearest even with denormals read
// and written as zero. (Intel SDM, volume 2, TDPBF16PS.) Nothing of this is in an ordinary build with GCC.
#pragma once
#include <cmath>
#include <cstring>

#include "simd/isa.h"

namespace jsc {

template <class V>
JSC_INLINE uint32_t emulate_nonzero(V v) {
    uint32_t mask = 0;
    for (unsigned i = 0; i < sizeof(V) / sizeof(v[0]); i++) mask |= (uint32_t)(v[i] != 0) << i;
    return mask;
}
template <class V>
JSC_INLINE V emulate_compress(V v, uint32_t bits) {
    V packed = {};
    int n = 0;
    for (unsigned i = 0; i < sizeof(V) / sizeof(v[0]); i++)
        if (bits >> i & 1) packed[n++] = v[i];
    return packed;
}
template <class V>
JSC_INLINE V emulate_expand(V packed, uint32_t bits) {
    V v = {};
    int n = 0;
    for (unsigned i = 0; i < sizeof(V) / sizeof(v[0]); i++)
        if (bits >> i & 1) v[i] = packed[n++];
    return v;
}

#if defined(JSC_EMULATE)

// ---- tiles: 16 rows of 64 bytes, eight for each thread -----------------------------------------------

struct EmulatedTile {
    union {
        uint32_t bits[16][16];
        float sums[16][16];
    };
};
inline EmulatedTile *emulate_tiles() {
    static thread_local EmulatedTile tiles[8];
    return tiles;
}
// The instruction clears the tiles; NaNs show who reads one that has not been loaded.
inline void emulate_tiles_begin() { memset((void *)emulate_tiles(), 0xff, 8 * sizeof(EmulatedTile)); }

inline void emulate_tile_load(int tile, const void *from, ptrdiff_t stride) {
    for (int m = 0; m < 16; m++) memcpy(emulate_tiles()[tile].bits[m], (const char *)from + m * stride, 64);
}
inline void emulate_tile_store(int tile, void *to, ptrdiff_t stride) {
    for (int m = 0; m < 16; m++) memcpy((char *)to + m * stride, emulate_tiles()[tile].bits[m], 64);
}

JSC_INLINE float emulate_bfloat(uint32_t high_bits) {
    float value;
    memcpy(&value, &high_bits, 4);
    return value;
}
JSC_TARGET_AVX2 __attribute__((noinline)) inline void
emulate_product(EmulatedTile *sum, const EmulatedTile *a, const EmulatedTile *b) {
    for (int m = 0; m < 16; m++) {
        float even[16] = {}, odd[16] = {};
        for (int k = 0; k < 16; k++) {
            const float left = emulate_bfloat(a->bits[m][k] << 16),
                        right = emulate_bfloat(a->bits[m][k] & 0xffff0000);
            for (int n = 0; n < 16; n++) {
                even[n] = __builtin_fmaf(left, emulate_bfloat(b->bits[k][n] << 16), even[n]);
                odd[n] = __builtin_fmaf(right, emulate_bfloat(b->bits[k][n] & 0xffff0000), odd[n]);
            }
        }
        for (int n = 0; n < 16; n++) sum->sums[m][n] += even[n] + odd[n];
    }
}
inline void emulate_tile_product(int sum, int a, int b) {
    EmulatedTile *t = emulate_tiles();
    const unsigned mode = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(0x9fc0);  // nearest even, no exceptions, denormals are zero on both sides
    emulate_product(t + sum, t + a, t + b);
    __builtin_ia32_ldmxcsr(mode);
}

#endif

}  // namespace jsc
