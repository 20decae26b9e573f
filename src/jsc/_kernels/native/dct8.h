// Orthonormal 8x8 DCT-II and its inverse (ITU-T T.81, A.3.3):  Z = D X D',  X = D' Z D,
//   D[k][n] = c(k)/2 cos((2n+1) k pi / 16),  c(0) = 1/sqrt(2), else 1.
// D is orthogonal, so each is the other's gradient.
//
// A vector holds one row of a block (8 lanes: two, one or half a register); a strip is the row of
// blocks that 8 image rows make.
#pragma once
#include "simd.h"

namespace jsc {

template <class T>
struct Dct8 {
    typedef typename VectorOf<T, 8 * (int)sizeof(T)>::type Row;

    static constexpr T D[8][8] = {
#define A 0.35355339059327376220
#define B 0.49039264020161522456
#define C 0.46193976625564337806
#define E 0.41573480615127261854
#define F 0.27778511650980111237
#define G 0.19134171618254488586
#define H 0.09754516100806413392
        {A, A, A, A, A, A, A, A},         {B, E, F, H, -H, -F, -E, -B}, {C, G, -G, -C, -C, -G, G, C},
        {E, -H, -B, -F, F, B, H, -E},     {A, -A, -A, A, A, -A, -A, A}, {F, -B, H, E, -E, -H, B, -F},
        {G, -C, C, -G, -G, C, -C, G},     {H, -F, E, -B, B, -E, F, -H},
#undef A
#undef B
#undef C
#undef E
#undef F
#undef G
#undef H
    };

    // y = M x with M = D (forward) or D' (inverse), applied to the columns of x.
    template <bool Inverse>
    JSC_INLINE void columns(const Row x[8], Row y[8]) {
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++) {
            y[k] = (Inverse ? D[0][k] : D[k][0]) * x[0];
#pragma GCC unroll 8
            for (int n = 1; n < 8; n++) y[k] += (Inverse ? D[n][k] : D[k][n]) * x[n];
        }
    }

    JSC_INLINE void transpose(Row x[8]) {
        T t[64];
        for (int i = 0; i < 8; i++) store<Row>(t + 8 * i, x[i]);
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < 8; j++) x[i][j] = t[8 * j + i];
    }

    template <bool Inverse>
    JSC_INLINE void block(Row x[8]) {
        Row y[8];
        columns<Inverse>(x, y);
        transpose(y);
        columns<Inverse>(y, x);
        transpose(x);
    }
};

// 8 image rows of `width` pixels (stride between rows: `pitch` elements) -> width/8 blocks of 64.
template <class T>
struct BlockDctStrip {
    template <class I>
    JSC_INLINE void run(const T *image, ptrdiff_t pitch, ptrdiff_t width, T *blocks) {
        for (ptrdiff_t b = 0; b < width / 8; b++) {
            typename Dct8<T>::Row x[8];
            for (int i = 0; i < 8; i++) x[i] = load<typename Dct8<T>::Row>(image + i * pitch + 8 * b);
            Dct8<T>::template block<false>(x);
            for (int i = 0; i < 8; i++) store(blocks + 64 * b + 8 * i, x[i]);
        }
    }
};

// width/8 blocks of 64 -> 8 image rows.
template <class T>
struct BlockIdctStrip {
    template <class I>
    JSC_INLINE void run(const T *blocks, ptrdiff_t pitch, ptrdiff_t width, T *image) {
        for (ptrdiff_t b = 0; b < width / 8; b++) {
            typename Dct8<T>::Row x[8];
            for (int i = 0; i < 8; i++) x[i] = load<typename Dct8<T>::Row>(blocks + 64 * b + 8 * i);
            Dct8<T>::template block<true>(x);
            for (int i = 0; i < 8; i++) store(image + i * pitch + 8 * b, x[i]);
        }
    }
};

template <class T>
inline void block_dct_strip(int isa, const T *image, ptrdiff_t pitch, ptrdiff_t width, T *blocks) {
    dispatch<BlockDctStrip<T>>(isa, image, pitch, width, blocks);
}
template <class T>
inline void block_idct_strip(int isa, const T *blocks, ptrdiff_t pitch, ptrdiff_t width, T *image) {
    dispatch<BlockIdctStrip<T>>(isa, blocks, pitch, width, image);
}

}  // namespace jsc
