// 8-bit pixels of the JPEG layer, as numbers: planes (N, C, H, W), pixels (N, H, W, C), or any other strides.
//
// Rows of 8 samples of a pack's blocks -> 8 vectors of floats, as `Pack::load_row` has them, with no memory
// between. From planes, four bytes of each of the blocks are one vector of bytes, which widens to one of
// numbers. From pixels, 16 bytes of each hold four pixels; a shuffle inside quarters takes one channel of
// them and widens it at the same time, so that three channels cost a third of the loads of floats.
//
// Ladder (ms per 224x224 image forward, one thread, AVX-512, in the cache; from floats .147):
//   through a staging buffer, scalar conversions                               .211
//   without one, from planes / from pixels                                     .147 / .147
#pragma once
#include "jpeg/dct.h"

namespace jsc {

// 8-bit images, with any strides.
struct JpegBytes {
    const uint8_t *first;
    ptrdiff_t image_step, channel_step, row_step, column_step;
};

template <class I, class T, int C>
struct BytePack {
    typedef Pack<I, T> P;
    typedef Vec<I, T> V;
    static constexpr int L = P::L, K = P::K, Q = P::Q;
#if defined(JSC_PLAIN)
    static constexpr bool vectors = false;
#else
    static constexpr bool vectors = std::is_same_v<T, float> && Q > 1;
#endif

    // Whether `load_rows` has images with such strides.
    JSC_INLINE bool loads(const JpegBytes &x) {
        return vectors && (x.column_step == 1 || (C == 3 && x.column_step == 3 && x.channel_step == 1));
    }

    // Integers -> numbers.
    JSC_INLINE V number(V integers) {
        V v;
        asm("vcvtdq2ps %1, %0" : "=v"(v) : "v"(integers));
        return v;
    }
    JSC_INLINE uint32_t word(const uint8_t *from) {
        uint32_t found;
        __builtin_memcpy(&found, from, 4);
        return found;
    }
    JSC_INLINE V four_samples(const uint8_t *const at[L], int j, ptrdiff_t offset) {
        typename VectorOf<uint32_t, 16>::type words = {word(at[j] + offset), word(at[j + K] + offset)};
        if constexpr (Q > 2) words[2] = word(at[j + 2 * K] + offset), words[3] = word(at[j + 3 * K] + offset);
        V integers;
        asm("vpmovzxbd %1, %0" : "=v"(integers) : "v"(words));
        return number(integers);
    }
    JSC_INLINE V sixteen_bytes(const uint8_t *const at[L], int j, ptrdiff_t offset) {
        V v = P::widen((const T *)(at[j] + offset));
        v = P::template insert<1>(v, (const T *)(at[j + K] + offset));
        if constexpr (Q > 2) {
            v = P::template insert<2>(v, (const T *)(at[j + 2 * K] + offset));
            v = P::template insert<3>(v, (const T *)(at[j + 3 * K] + offset));
        }
        return v;
    }
    // Every third byte of each quarter from `first` on, four of them, as integers.
    JSC_INLINE V every_third(V bytes, int first) {
        typename VectorOf<uint32_t, I::bytes>::type order;
        for (int i = 0; i < L; i++) order[i] = 0x80808000u + (uint32_t)(first + 3 * (i % K));
        V integers;
        asm("vpshufb %2, %1, %0" : "=v"(integers) : "v"(bytes), "v"(order));
        return integers;
    }

    // Row `row` of the blocks that begin at `at`, all channels. Nothing outside the row is read.
    JSC_INLINE void load_rows(const uint8_t *const at[L], const JpegBytes &x, int row, V v[3][8]) {
        const ptrdiff_t offset = row * x.row_step;
        if (x.column_step == 1) {
#pragma GCC unroll 3
            for (int c = 0; c < C; c++)
#pragma GCC unroll 2
                for (int part = 0; part < 8; part += K) {
#pragma GCC unroll 4
                    for (int j = 0; j < K; j++)
                        v[c][part + j] = four_samples(at, j, offset + c * x.channel_step + part);
                    P::transpose(v[c] + part);
                }
        } else if constexpr (C == 3) {
#pragma GCC unroll 2
            for (int part = 0; part < 8; part += K) {
                // bytes 0 to 15, and 8 to 23, of the row's 24
#pragma GCC unroll 4
                for (int j = 0; j < K; j++) {
                    const V bytes = sixteen_bytes(at, j, offset + 2 * part);
#pragma GCC unroll 3
                    for (int c = 0; c < C; c++) v[c][part + j] = number(every_third(bytes, part + c));
                }
#pragma GCC unroll 3
                for (int c = 0; c < C; c++) P::transpose(v[c] + part);
            }
        }
    }
};

}  // namespace jsc
