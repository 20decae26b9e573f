// bf16x3: dense float32 convolution on AMX tiles, whose multipliers take bfloat16 only.
//
//   out[k, y, x] = bias[k] + sum_{c, i, j} in[c, y Sh + i Dh - Ph, x Sw + j Dw - Pw] weight[k, c, i, j]
//
// A float32 has 24 significant bits, a bfloat16 has 8: every float is the sum a1 + a2 + a3 of its
// rounding to bfloat16 and the roundings of what is left, exactly. Of the nine products of two such
// sums the six largest are added up in float32 (oneMKL's compute mode of the same name, Henry, Tang
// and Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision
// Computations", ARITH 2019):
//
//   a b = a1 b1 + (a1 b2 + a2 b1) + (a1 b3 + a2 b2 + a3 b1) + error, |error| < 2^-22 |a b|
//
// Layout
//   input    channels-last (N, H, W, C) float32
//   planes   of a band of output rows: (chunks, 3 pieces, phases, rows, pitch, c) bfloat16 with c channels
//            to a chunk; phase p, row r holds input row r Sh + p - Ph, column q input column
//            q step - Pw; zeros in the padding. The right padding of a row is the left one of the next.
//   steps    a step is 32 / c neighbouring taps of a kernel row and a chunk: 32 numbers a pixel
//   weights  (K blocks, steps, 3 pieces, 32 filters as 2 tiles, 16 pairs of numbers, 16 filters, 2) bfloat16;
//            zero where there is no filter, channel or tap
//
// Output pixels are numbered along the planes' pitch, q = row * (pitch / Sw) + column: a tap is then the
// same shift for every pixel, and 16 consecutive q are one operand tile, read where it lies. The few q
// beyond a row's end are computed and not stored. A task holds 32 pixels and 32 filters in four
// accumulator tiles and runs through all steps: 14 loads of a kB for 24 products of 16 cycles.
//
// Ladder (G multiply-adds of the convolution a second on one core, 1560 / 6 = 260 at best; a 3x3 of 128
// channels at 28, 256 at 14, a 1x1 of 64 -> 256 at 56; dense float32 in torch 80, 50, 75)
//   three steps a pass, partial sums in L1              188   166   122
//   all steps, accumulators never stored                220   197   112
//   64 pixels and 16 filters instead of 32 and 32       218   189    66
//
// Numerics: each output starts from its bias and adds its products in the order (chunk, kernel row, taps,
// products as in `bf16x3_step`), the pairs of channels in the tile's own order: the same bits for every
// thread count and batch split. Integers are exact as long as float32 is. Numbers below 2^-126 count as
// zero, in products and in the pieces: what is below 2^-102 loses its last bits. NaN, inf and numbers that
// round to inf in bfloat16 have no such sum: `bad` is set where the input has one, and the caller
// convolves in another way.
#pragma once
#include "simd.h"

namespace jsc {

constexpr int BF16X3_TILE = 16 * 32;  // numbers in an operand tile: 16 rows of 32 bfloat16
constexpr int BF16X3_BLOCK = 32;      // filters to a block, pixels to a task's step

// ---- the input in three pieces ---------------------------------------------------------------------

typedef uint16_t Words32 __attribute__((vector_size(64), aligned(2), may_alias));
typedef uint16_t Words16 __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint32_t Bits16 __attribute__((vector_size(64), aligned(4), may_alias));

// Takes the float of 8 bits that is nearest to each number off it: its high halves are bfloat16.
JSC_INLINE Bits16 bf16x3_take(Vec<Avx512, float> &v) {
    Bits16 rounded = ((Bits16)v + 0x8000) & 0xffff0000;
    v -= (Vec<Avx512, float>)rounded;
    return rounded;
}

// 32 numbers, or the first 16 of them, to the three planes. The bits of the largest magnitudes so far
// are kept in `largest`.
template <bool Half>
JSC_INLINE void bf16x3_pieces(Vec<Avx512, float> low, Vec<Avx512, float> high, uint16_t *to, ptrdiff_t piece, Words32 &largest) {
    constexpr Words32 high_halves = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                     33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++, to += piece) {
        Words32 packed = __builtin_shuffle((Words32)bf16x3_take(low), (Words32)bf16x3_take(high), high_halves);
        if (i == 0) {
            Words32 magnitude = packed & 0x7fff;
            largest = magnitude > largest ? magnitude : largest;
        }
        if constexpr (Half) {
            Words16 half;
            __builtin_memcpy(&half, &packed, sizeof half);
            *(Words16 *)to = half;
        } else {
            *(Words32 *)to = packed;
        }
    }
}

// One row of a plane for every chunk of `c` channels (4, 8: all channels in one chunk; 16, 32).
struct Bf16x3Row {
    const float *x;       // the input row's first pixel, or null for a row of padding
    uint16_t *to;         // the row in the first chunk's first piece
    ptrdiff_t W, C, Pw, step, pitch;  // column q of a row of `pitch` is input column q step - Pw
    ptrdiff_t chunk, piece;           // from a chunk, piece to the next
    int c;
    unsigned char *bad;
};

struct Bf16x3Split {
    using V = Vec<Avx512, float>;

    // 16 channels of a pixel, from `channel` on; zeros behind the last.
    JSC_INLINE V channels(const float *x, ptrdiff_t channel, ptrdiff_t C) {
        V v = {};
        if (channel + 16 <= C) v = load<V>(x + channel);
        else if (channel < C) v = load_partial<V>(x + channel, (int)(C - channel));
        return v;
    }

    template <class I>
    JSC_INLINE void run(const Bf16x3Row *row) {
        const Bf16x3Row t = *row;
        const ptrdiff_t chunks = (t.C + t.c - 1) / t.c;
        // Columns q with 0 <= q step - Pw < W come from the input, the others are zeros.
        ptrdiff_t first = t.x ? (t.Pw + t.step - 1) / t.step : t.pitch;
        ptrdiff_t end = t.x ? (t.Pw + t.W + t.step - 1) / t.step : t.pitch;
        first = first < t.pitch ? first : t.pitch, end = end < t.pitch ? end : t.pitch;
        for (ptrdiff_t s = 0; s < chunks; s++)
            for (int i = 0; i < 3; i++) {
                uint16_t *to = t.to + s * t.chunk + i * t.piece;
                for (ptrdiff_t e = 0; e < first * t.c; e++) to[e] = 0;
                for (ptrdiff_t e = end * t.c; e < t.pitch * t.c; e++) to[e] = 0;
            }
        Words32 largest = {};
        const ptrdiff_t pixel = t.step * t.C;
        const float *x = t.x + (first * t.step - t.Pw) * t.C;
        if (t.c < 16) {
            narrow(t, first, end, largest);
        } else if (t.c == 16) {
            for (ptrdiff_t q = first; q < end; q += 2, x += 2 * pixel)
                for (ptrdiff_t s = 0; s < chunks; s++) {
                    uint16_t *to = t.to + s * t.chunk + q * 16;
                    V left = channels(x, 16 * s, t.C);
                    if (q + 1 < end) bf16x3_pieces<false>(left, channels(x + pixel, 16 * s, t.C), to, t.piece, largest);
                    else bf16x3_pieces<true>(left, left, to, t.piece, largest);
                }
        } else {
            for (ptrdiff_t q = first; q < end; q++, x += pixel)
                for (ptrdiff_t s = 0; s < chunks; s++)
                    bf16x3_pieces<false>(channels(x, 32 * s, t.C), channels(x, 32 * s + 16, t.C),
                                         t.to + s * t.chunk + q * 32, t.piece, largest);
        }
        for (int i = 0; i < 32; i++)
            if (largest[i] >= 0x7f80) *t.bad = 1;
    }

    // Few channels, all in one chunk: 16 / c pixels to a vector.
    JSC_INLINE void narrow(const Bf16x3Row &t, ptrdiff_t first, ptrdiff_t end, Words32 &largest) {
        const int pixels = 16 / t.c;
        for (ptrdiff_t q = first; q < end; q += pixels) {
            V v = {};
            int n = end - q < pixels ? (int)(end - q) : pixels;
            const ptrdiff_t column = q * t.step - t.Pw;
            const float *x = t.x + column * t.C;
            if (t.step == 1 && n == pixels && column * t.C + 16 <= t.W * t.C) {
                uint32_t bits = (1u << t.C) - 1;
                bits |= bits << t.c, bits |= bits << 2 * t.c;
                v = expand_lanes(load<V>(x), bits & 0xffff);
            } else {
                for (int p = 0; p < n; p++)
                    for (ptrdiff_t e = 0; e < t.C; e++) v[p * t.c + e] = x[p * t.step * t.C + e];
            }
            uint16_t pieces[48];
            bf16x3_pieces<true>(v, v, n == pixels ? t.to + q * t.c : pieces, n == pixels ? t.piece : 16, largest);
            for (int i = 0; i < 3 && n < pixels; i++)  // what is behind these pixels is not to be touched
                for (int e = 0; e < n * t.c; e++) t.to[q * t.c + i * t.piece + e] = pieces[16 * i + e];
        }
    }
};

// ---- tiles -----------------------------------------------------------------------------------------

#if defined(__x86_64__)
#define JSC_TILE_LOAD(tile, from, stride) \
    asm volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(from), "r"((ptrdiff_t)(stride)) : "memory")
#define JSC_TILE_STORE(tile, to, stride) \
    asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"((ptrdiff_t)(stride)) : "memory")
#define JSC_TILE_PRODUCT(sum, a, b) asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum ::)
#else
#define JSC_TILE_LOAD(tile, from, stride) ((void)(from), (void)(stride))
#define JSC_TILE_STORE(tile, to, stride) ((void)(to), (void)(stride))
#define JSC_TILE_PRODUCT(sum, a, b) ((void)0)
#endif

// All eight tiles are 16 rows of 64 bytes. Between `bf16x3_begin` and `bf16x3_end` a thread has the
// tiles' state, which a context switch must save.
inline void bf16x3_begin() {
#if defined(__x86_64__)
    struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } config = {};
    config.palette = 1;
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
    asm volatile("ldtilecfg %0" ::"m"(config));
#endif
}
inline void bf16x3_end() {
#if defined(__x86_64__)
    asm volatile("tilerelease" ::);
#endif
}

// What a task needs to know; in elements, `x` at the band's planes.
struct Bf16x3Task {
    const uint16_t *x;
    const uint16_t *weight;   // of the filter block
    const float *bias;        // 32 numbers of the filter block
    const ptrdiff_t *offset;  // (steps): from x to the step's first pixel, first piece
    float *out;               // the band's first row, the block's first filter
    float *sums;              // SCRATCH 1024 numbers
    ptrdiff_t steps, piece, pixel;  // from a piece, pixel q to the next
    ptrdiff_t pitch, Ow, K;         // q's to a row, outputs to a row, filters of the layer
    ptrdiff_t first, end;           // the task's own q's; `first` is a multiple of 32
    int filters;                    // of the block that exist, at most 32
};

// One step of 32 pixels by 32 filters. Each product of pieces is taken for all four sums before the next,
// and shares an operand with its neighbours; sums are 52 cycles apart, products 16.
JSC_INLINE void bf16x3_step(const uint16_t *a, ptrdiff_t piece, ptrdiff_t half, ptrdiff_t stride, const uint16_t *w) {
    const uint16_t *a1 = a, *a2 = a + piece, *a3 = a2 + piece;
    constexpr int T = BF16X3_TILE;
    JSC_TILE_LOAD(4, a3, stride); JSC_TILE_LOAD(6, w, 64); JSC_TILE_PRODUCT(0, 4, 6);
    JSC_TILE_LOAD(7, w + T, 64); JSC_TILE_PRODUCT(1, 4, 7);
    JSC_TILE_LOAD(5, a3 + half, stride); JSC_TILE_PRODUCT(2, 5, 6); JSC_TILE_PRODUCT(3, 5, 7);
    JSC_TILE_LOAD(4, a2, stride); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(1, 4, 7);
    JSC_TILE_LOAD(5, a2 + half, stride); JSC_TILE_PRODUCT(2, 5, 6); JSC_TILE_PRODUCT(3, 5, 7);
    JSC_TILE_LOAD(6, w + 2 * T, 64); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(2, 5, 6);
    JSC_TILE_LOAD(7, w + 3 * T, 64); JSC_TILE_PRODUCT(1, 4, 7); JSC_TILE_PRODUCT(3, 5, 7);
    JSC_TILE_LOAD(4, a1, stride); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(1, 4, 7);
    JSC_TILE_LOAD(5, a1 + half, stride); JSC_TILE_PRODUCT(2, 5, 6); JSC_TILE_PRODUCT(3, 5, 7);
    JSC_TILE_LOAD(6, w + 4 * T, 64); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(2, 5, 6);
    JSC_TILE_LOAD(7, w + 5 * T, 64); JSC_TILE_PRODUCT(1, 4, 7); JSC_TILE_PRODUCT(3, 5, 7);
    JSC_TILE_LOAD(6, w, 64); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(2, 5, 6);
    JSC_TILE_LOAD(7, w + T, 64); JSC_TILE_PRODUCT(1, 4, 7); JSC_TILE_PRODUCT(3, 5, 7);
}

// The same sums for 16 pixels, in sums 0 and 1.
JSC_INLINE void bf16x3_half_step(const uint16_t *a, ptrdiff_t piece, ptrdiff_t stride, const uint16_t *w) {
    const uint16_t *a1 = a, *a2 = a + piece, *a3 = a2 + piece;
    constexpr int T = BF16X3_TILE;
    JSC_TILE_LOAD(4, a3, stride); JSC_TILE_LOAD(6, w, 64); JSC_TILE_PRODUCT(0, 4, 6);
    JSC_TILE_LOAD(7, w + T, 64); JSC_TILE_PRODUCT(1, 4, 7);
    JSC_TILE_LOAD(4, a2, stride); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(1, 4, 7);
    JSC_TILE_LOAD(5, w + 2 * T, 64); JSC_TILE_PRODUCT(0, 4, 5);
    JSC_TILE_LOAD(5, w + 3 * T, 64); JSC_TILE_PRODUCT(1, 4, 5);
    JSC_TILE_LOAD(4, a1, stride);
    JSC_TILE_LOAD(5, w + 2 * T, 64); JSC_TILE_PRODUCT(0, 4, 5);
    JSC_TILE_LOAD(5, w + 3 * T, 64); JSC_TILE_PRODUCT(1, 4, 5);
    JSC_TILE_LOAD(5, w + 4 * T, 64); JSC_TILE_PRODUCT(0, 4, 5);
    JSC_TILE_LOAD(5, w + 5 * T, 64); JSC_TILE_PRODUCT(1, 4, 5);
    JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(1, 4, 7);
}

// One step of 64 pixels by 16 filters: sum n is that of the pixels 16 n .. 16 n + 15.
JSC_INLINE void bf16x3_narrow_step(const uint16_t *a, ptrdiff_t piece, ptrdiff_t half, ptrdiff_t stride, const uint16_t *w) {
    constexpr int T = BF16X3_TILE;
    JSC_TILE_LOAD(5, w, 64); JSC_TILE_LOAD(6, w + 2 * T, 64); JSC_TILE_LOAD(7, w + 4 * T, 64);
    const uint16_t *x = a + 2 * piece;
    JSC_TILE_LOAD(4, x, stride); JSC_TILE_PRODUCT(0, 4, 5);
    JSC_TILE_LOAD(4, x + half, stride); JSC_TILE_PRODUCT(1, 4, 5);
    JSC_TILE_LOAD(4, x + 2 * half, stride); JSC_TILE_PRODUCT(2, 4, 5);
    JSC_TILE_LOAD(4, x + 3 * half, stride); JSC_TILE_PRODUCT(3, 4, 5);
    x = a + piece;
    JSC_TILE_LOAD(4, x, stride); JSC_TILE_PRODUCT(0, 4, 5); JSC_TILE_PRODUCT(0, 4, 6);
    JSC_TILE_LOAD(4, x + half, stride); JSC_TILE_PRODUCT(1, 4, 5); JSC_TILE_PRODUCT(1, 4, 6);
    JSC_TILE_LOAD(4, x + 2 * half, stride); JSC_TILE_PRODUCT(2, 4, 5); JSC_TILE_PRODUCT(2, 4, 6);
    JSC_TILE_LOAD(4, x + 3 * half, stride); JSC_TILE_PRODUCT(3, 4, 5); JSC_TILE_PRODUCT(3, 4, 6);
    x = a;
    JSC_TILE_LOAD(4, x, stride); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(0, 4, 7); JSC_TILE_PRODUCT(0, 4, 5);
    JSC_TILE_LOAD(4, x + half, stride); JSC_TILE_PRODUCT(1, 4, 6); JSC_TILE_PRODUCT(1, 4, 7); JSC_TILE_PRODUCT(1, 4, 5);
    JSC_TILE_LOAD(4, x + 2 * half, stride); JSC_TILE_PRODUCT(2, 4, 6); JSC_TILE_PRODUCT(2, 4, 7); JSC_TILE_PRODUCT(2, 4, 5);
    JSC_TILE_LOAD(4, x + 3 * half, stride); JSC_TILE_PRODUCT(3, 4, 6); JSC_TILE_PRODUCT(3, 4, 7); JSC_TILE_PRODUCT(3, 4, 5);
}

// ---- one task --------------------------------------------------------------------------------------

// Sums of the pixels q .. end - 1, 16 pixels by 16 filters to a tile, `tiles` of filters to a pixel, to
// the outputs that exist.
struct Bf16x3Store {
    template <class I>
    JSC_INLINE void run(const Bf16x3Task *task, ptrdiff_t q, ptrdiff_t end, int tiles) {
        using V = Vec<I, float>;
        constexpr int L = lanes<I, float>;
        const Bf16x3Task &t = *task;
        ptrdiff_t row = q / t.pitch, column = q - row * t.pitch;
        for (ptrdiff_t p = 0; p < end - q; p++, column++) {
            if (column == t.pitch) column = 0, row++;
            if (column >= t.Ow) continue;
            float *to = t.out + (row * t.Ow + column) * t.K;
            const float *from = t.sums + (p >> 4) * tiles * 256 + (p & 15) * 16;
            for (int tile = 0; tile < tiles; tile++, from += 256, to += 16) {
                int n = t.filters - 16 * tile, k = 0;
                n = n < 16 ? n : 16;
                for (; k + L <= n; k += L) store(to + k, load<V>(from + k));
                for (; k < n; k++) to[k] = from[k];
            }
        }
    }
};

inline void bf16x3_store(const Bf16x3Task &t, ptrdiff_t q, ptrdiff_t end, int tiles) {
    dispatch<Bf16x3Store>(ISA_AVX512, &t, q, end < t.end ? end : t.end, tiles);
}

inline void bf16x3_store_sums(float *sums) {
    JSC_TILE_STORE(0, sums, 64);
    JSC_TILE_STORE(1, sums + 256, 64);
    JSC_TILE_STORE(2, sums + 512, 64);
    JSC_TILE_STORE(3, sums + 768, 64);
}

inline void bf16x3_task(const Bf16x3Task *task) {
    const Bf16x3Task &t = *task;
    const ptrdiff_t stride = t.pixel * (ptrdiff_t)sizeof(uint16_t), half = 16 * t.pixel;
    constexpr int step = 6 * BF16X3_TILE;
    ptrdiff_t q = t.first;
    for (; t.filters <= 16 && t.end - q > 32; q += 64) {
        const uint16_t *x = t.x + q * t.pixel, *w = t.weight;
        JSC_TILE_LOAD(0, t.bias, 0);  // sixteen times the same row
        JSC_TILE_LOAD(1, t.bias, 0);
        JSC_TILE_LOAD(2, t.bias, 0);
        JSC_TILE_LOAD(3, t.bias, 0);
        for (ptrdiff_t s = 0; s < t.steps; s++, w += step) bf16x3_narrow_step(x + t.offset[s], t.piece, half, stride, w);
        bf16x3_store_sums(t.sums);
        bf16x3_store(t, q, q + 64, 1);
    }
    for (; t.end - q > 16; q += 32) {
        const uint16_t *x = t.x + q * t.pixel, *w = t.weight;
        JSC_TILE_LOAD(0, t.bias, 0);
        JSC_TILE_LOAD(1, t.bias + 16, 0);
        JSC_TILE_LOAD(2, t.bias, 0);
        JSC_TILE_LOAD(3, t.bias + 16, 0);
        for (ptrdiff_t s = 0; s < t.steps; s++, w += step) bf16x3_step(x + t.offset[s], t.piece, half, stride, w);
        if (t.pitch == t.Ow && t.end - q >= 32 && t.filters == 32) {  // pixels follow each other in the output too
            float *to = t.out + q * t.K;
            JSC_TILE_STORE(0, to, t.K * 4);
            JSC_TILE_STORE(1, to + 16, t.K * 4);
            JSC_TILE_STORE(2, to + 16 * t.K, t.K * 4);
            JSC_TILE_STORE(3, to + 16 * t.K + 16, t.K * 4);
        } else {
            bf16x3_store_sums(t.sums);
            bf16x3_store(t, q, q + 32, 2);
        }
    }
    if (q < t.end) {
        const uint16_t *x = t.x + q * t.pixel, *w = t.weight;
        JSC_TILE_LOAD(0, t.bias, 0);
        JSC_TILE_LOAD(1, t.bias + 16, 0);
        for (ptrdiff_t s = 0; s < t.steps; s++, w += step) bf16x3_half_step(x + t.offset[s], t.piece, stride, w);
        JSC_TILE_STORE(0, t.sums, 64);
        JSC_TILE_STORE(1, t.sums + 256, 64);
        bf16x3_store(t, q, q + 16, 2);
    }
}

inline void bf16x3_split(const Bf16x3Row *row) { dispatch<Bf16x3Split>(ISA_AVX512, row); }

}  // namespace jsc
