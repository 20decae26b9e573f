// Threefry-4x32 with 20 rounds (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011): four random words from four words that count and a key, in every lane by itself. No state: the
// same numbers whatever computes them, in any order. Only additions, rotations and exclusive ors.
#pragma once
#include "simd/simd.h"

namespace jsc {

template <int L>
struct Threefry {
    typedef typename VectorOf<uint32_t, 4 * L>::type Word;
    typedef typename VectorOf<int32_t, 4 * L>::type Signed;

    JSC_INLINE Word constant(uint32_t x) {
        Word w = {};
        return w + x;
    }
    template <int Bits>
    JSC_INLINE Word rotate(Word w) {
        return (w << Bits) | (w >> (32 - Bits));
    }
    template <int First, int Second, int Together>
    JSC_INLINE void mix(Word words[Together][4], bool swapped) {
        const int b = swapped ? 3 : 1, d = swapped ? 1 : 3;
#pragma GCC unroll 4
        for (int t = 0; t < Together; t++) {
            Word *w = words[t];
            w[0] += w[b], w[b] = rotate<First>(w[b]) ^ w[0];
            w[2] += w[d], w[d] = rotate<Second>(w[d]) ^ w[2];
        }
    }
    template <int Together>
    JSC_INLINE void inject(Word words[Together][4], const uint32_t key[5], int round) {
#pragma GCC unroll 4
        for (int t = 0; t < Together; t++) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) words[t][i] += key[(round + i) % 5];
            words[t][3] += (uint32_t)round;
        }
    }
    // words: what counts -> what is random. The key has 64 bits, and zeros. Four at a time take .7 of the
    // time of one after the other, whose chain of operations waits for itself.
    template <int Together>
    JSC_INLINE void run(Word words[Together][4], const uint32_t seed[2]) {
        constexpr int N = Together;
        const uint32_t key[5] = {seed[0], seed[1], 0, 0, 0x1BD11BDA ^ seed[0] ^ seed[1]};
        inject<N>(words, key, 0);
#pragma GCC unroll 5
        for (int eight = 0; eight < 5; eight++) {  // four rounds, then the key
            if (eight % 2 == 0) {
                mix<10, 26, N>(words, false), mix<11, 21, N>(words, true);
                mix<13, 27, N>(words, false), mix<23, 5, N>(words, true);
            } else {
                mix<6, 20, N>(words, false), mix<17, 11, N>(words, true);
                mix<25, 10, N>(words, false), mix<18, 20, N>(words, true);
            }
            inject<N>(words, key, eight + 1);
        }
    }

    // In (0, 1): the middles of 2^23 equal intervals for float, of 2^31 for double. Not 0, at which an
    // inversion would draw the last level, however unlikely it is.
    template <class V>
    JSC_INLINE V uniform(Word w) {
        using T = std::decay_t<decltype(V{}[0])>;
        if constexpr (sizeof(T) == 4)
            return (__builtin_convertvector((Signed)(w >> 9), V) + (T)0.5) * (T)0x1p-23;
        else return (__builtin_convertvector((Signed)(w >> 1), V) + (T)0.5) * (T)0x1p-31;
    }
};

}  // namespace jsc
