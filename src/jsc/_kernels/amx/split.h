// The input of amx (product.h) as sums of at most three bfloat16 numbers: planes of a band of rows, or
// windows.
//
// A float32 has 24 significant bits, a bfloat16 has 8. The float of 8 bits that is nearest to a number is
// its first piece, the one nearest to what is left the second, and what is left then, of at most 8 bits,
// the third: a sum without error. That takes 20 vector operations for 32 numbers (14 cycles measured; 24 with
// conversions to bfloat16 and back, and permutations that keep the order).
#pragma once
#include <cstring>

#include "simd/simd.h"

namespace jsc {

constexpr int AMX_WINDOW = 512;  // numbers of the largest window

typedef uint16_t Words32 __attribute__((vector_size(64), aligned(2), may_alias));
typedef uint16_t Words16 __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint32_t Bits16 __attribute__((vector_size(64), aligned(4), may_alias));

// Takes the float of 8 bits that is nearest to each number off it: its high halves are bfloat16. `Last` of
// three: what is left has 8 bits.
template <bool Last>
JSC_INLINE Bits16 amx_take(Vec<Avx512, float> &v) {
    if constexpr (Last) return (Bits16)v;
    Bits16 rounded = ((Bits16)v + 0x8000) & 0xffff0000;
    v -= (Vec<Avx512, float>)rounded;
    return rounded;
}

// 32 numbers to their planes, in the order low 0, high 0, low 1, high 1, ...: an order that costs a
// shift, where any other costs permutations, and that the weights are packed in too. The largest
// magnitudes so far are kept in `largest`.
template <int Pieces>
JSC_INLINE void amx_pieces(Vec<Avx512, float> low, Vec<Avx512, float> high, uint16_t *to, ptrdiff_t piece,
                           Words32 &largest) {
    Words32 first = (Words32)(amx_take<false>(low) >> 16 | amx_take<false>(high)), magnitude = first & 0x7fff;
    largest = magnitude > largest ? magnitude : largest;
    *(Words32 *)to = first;
    if constexpr (Pieces > 1)
        *(Words32 *)(to + piece) = (Words32)(amx_take<false>(low) >> 16 | amx_take<false>(high));
    if constexpr (Pieces > 2)
        *(Words32 *)(to + 2 * piece) = (Words32)(amx_take<true>(low) >> 16 | amx_take<true>(high));
}

// 16 numbers in their own order.
template <int Pieces>
JSC_INLINE void amx_pieces(Vec<Avx512, float> v, uint16_t *to, ptrdiff_t piece, Words32 &largest) {
    Bits16 first = amx_take<false>(v);
    Words32 magnitude = (Words32)first & 0x7fff;  // low halves are zero
    largest = magnitude > largest ? magnitude : largest;
    *(Words16 *)to = __builtin_convertvector(first >> 16, Words16);
    if constexpr (Pieces > 1)
        *(Words16 *)(to + piece) = __builtin_convertvector(amx_take<false>(v) >> 16, Words16);
    if constexpr (Pieces > 2)
        *(Words16 *)(to + 2 * piece) = __builtin_convertvector(amx_take<true>(v) >> 16, Words16);
}

// Numbers 0, 16, 1, 17, ... of 32.
template <size_t... l>
JSC_INLINE Words32 interleaved(Words32 v, std::index_sequence<l...>) {
    return shuffle<((int)l % 2 * 16 + (int)l / 2)...>(v, v);
}

// The lanes of 16 numbers whose bits are set, zeros in the others; memory there is not touched.
JSC_INLINE Vec<Avx512, float> amx_lanes(const float *x, uint32_t bits) {
    Vec<Avx512, float> v = {};
#if defined(JSC_PLAIN)
    for (int i = 0; i < 16; i++)
        if (bits >> i & 1) v[i] = x[i];
#elif defined(__x86_64__)
    asm("kmovw %2, %%k1\n\tvmovups %1, %0%{%%k1%}%{z%}"
        : "=v"(v)
        : "m"(*(const Vec<Avx512, float> *)x), "r"(bits)
        : "k1");
#endif
    return v;
}

// `chunk` numbers that are bfloat16 already, of which `left` are there, in the same orders.
JSC_INLINE void amx_copy(const uint16_t *x, ptrdiff_t left, int chunk, uint16_t *to, Words32 &largest) {
    Words32 v = {};
    if (left >= 32 && chunk == 32) v = *(const Words32 *)x;
    else memcpy(&v, x, 2 * (left < chunk ? left : chunk));
    const Words32 magnitude = v & 0x7fff;
    largest = magnitude > largest ? magnitude : largest;
    if (chunk == 16) memcpy(to, &v, 32);
    else *(Words32 *)to = interleaved(v, std::make_index_sequence<32>());
}

struct AmxRow {
    const char *x;  // the image
    ptrdiff_t x_bytes;  // of one of its numbers: 4, or 2 of bfloat16
    uint16_t *to;  // the row of the planes, first chunk, first piece
    ptrdiff_t H, W, C, x_pitch;  // x_pitch: from a pixel to the next
    ptrdiff_t y;  // input row of the planes' row, of its first kernel row where it holds windows
    ptrdiff_t Pw, step, pitch;  // column q of a row of `pitch` is, or begins at, input column q step - Pw
    ptrdiff_t chunk, piece;  // from a chunk, piece to the next
    ptrdiff_t Kh, Dh, across, size;  // windows: kernel rows, their distance, numbers of one, numbers of all
    int c;  // channels to a chunk, 16 or 32
    unsigned char *bad;  // set to 1 where a number rounds to inf, or is NaN
};

JSC_INLINE void amx_judge(Words32 largest, unsigned char *bad) {
    for (int i = 0; i < 32; i++)
        if (largest[i] >= 0x7f80) __atomic_store_n(bad, 1, __ATOMIC_RELAXED);  // several threads may
}

// One row of the planes, all chunks. X: the numbers of the image, float32 or with one piece bfloat16.
template <int Pieces, class X = float>
struct AmxSplit {
    using V = Vec<Avx512, float>;

    // 16 channels of a pixel, from `channel` on; zeros behind the last.
    JSC_INLINE V channels(const float *x, ptrdiff_t channel, ptrdiff_t C) {
        V v = {};
        if (channel + 16 <= C) v = load<V>(x + channel);
        else if (channel < C) v = amx_lanes(x + channel, (1u << (C - channel)) - 1);
        return v;
    }

    template <class I>
    JSC_INLINE void run(const AmxRow *row) {
        const AmxRow t = *row;
        const ptrdiff_t chunks = (t.C + t.c - 1) / t.c;
        // Columns q with 0 <= q step - Pw < W come from the input, the others are zeros.
        const bool padding = t.y < 0 || t.y >= t.H;
        ptrdiff_t first = padding ? t.pitch : (t.Pw + t.step - 1) / t.step;
        ptrdiff_t end = padding ? t.pitch : (t.Pw + t.W + t.step - 1) / t.step;
        first = first < t.pitch ? first : t.pitch, end = end < t.pitch ? end : t.pitch;
        for (ptrdiff_t s = 0; s < chunks; s++)
            for (int i = 0; i < Pieces; i++) {
                uint16_t *to = t.to + s * t.chunk + i * t.piece;
                for (ptrdiff_t e = 0; e < first * t.c; e++) to[e] = 0;
                for (ptrdiff_t e = end * t.c; e < t.pitch * t.c; e++) to[e] = 0;
            }
        if (padding) return;
        Words32 largest = {};
        const ptrdiff_t pixel = t.step * t.x_pitch;
        const X *x = (const X *)t.x + (t.y * t.W + first * t.step - t.Pw) * t.x_pitch;
        for (ptrdiff_t q = first; q < end; q++, x += pixel)
            for (ptrdiff_t s = 0; s < chunks; s++) {
                uint16_t *to = t.to + s * t.chunk + q * t.c;
                if constexpr (sizeof(X) == 2) amx_copy(x + t.c * s, t.C - t.c * s, t.c, to, largest);
                else if (t.c == 16) amx_pieces<Pieces>(channels(x, 16 * s, t.C), to, t.piece, largest);
                else
                    amx_pieces<Pieces>(channels(x, 32 * s, t.C), channels(x, 32 * s + 16, t.C), to, t.piece,
                                       largest);
            }
        amx_judge(largest, t.bad);
    }
};

// One row of windows: the numbers that a pixel of the output is made of, kernel row by kernel row of at
// most 32 numbers, and zeros up to the size of a window, a multiple of 32 and at most AMX_WINDOW.
template <int Pieces>
struct AmxWindows {
    using V = Vec<Avx512, float>;
    static constexpr int together = 4;  // pixels gathered before the first is read again: stores settle

    template <class I>
    JSC_INLINE void run(const AmxRow *row) {
        const AmxRow t = *row;
        const ptrdiff_t used = t.Kh * t.across;
        alignas(64) float window[together][AMX_WINDOW + 32];
        for (int p = 0; p < together; p++)
            for (ptrdiff_t e = used; e < t.size; e++) window[p][e] = 0;
        Words32 largest = {};
        for (ptrdiff_t q0 = 0; q0 < t.pitch; q0 += together) {
            const int pixels = t.pitch - q0 < together ? (int)(t.pitch - q0) : together;
            for (int p = 0; p < pixels; p++) gather(t, (q0 + p) * t.step - t.Pw, window[p]);
            for (int p = 0; p < pixels; p++)
                for (ptrdiff_t e = 0; e < t.size; e += 32)
                    amx_pieces<Pieces>(load<V>(window[p] + e), load<V>(window[p] + e + 16),
                                       t.to + (q0 + p) * t.size + e, t.piece, largest);
        }
        amx_judge(largest, t.bad);
    }

    JSC_INLINE void gather(const AmxRow &t, ptrdiff_t column, float *window) {
        if (t.x_pitch != t.C) return gather_apart(t, column, window);
        // Bit b: number b of a kernel row lies in the image.
        const ptrdiff_t left = column < 0 ? -column * t.C : 0, right = (t.W - column) * t.C;
        uint64_t inside = 0;
        if (right > left && left < t.across)
            inside = (1ull << (right < t.across ? right : t.across)) - (1ull << left);
        for (ptrdiff_t i = 0; i < t.Kh; i++) {
            const ptrdiff_t y = t.y + i * t.Dh;
            const uint64_t bits = y >= 0 && y < t.H ? inside : 0;
            const float *x = (const float *)t.x + (bits ? (y * t.W + column) * t.C : 0);
            // What is written too far is zero, or written over by the next kernel row.
            store(window + i * t.across, amx_lanes(x, (uint32_t)bits & 0xffff));
            store(window + i * t.across + 16, amx_lanes(x + 16, (uint32_t)(bits >> 16)));
        }
    }

    // The same where a pixel's channels (at most 16) do not follow those of the pixel before.
    JSC_INLINE void gather_apart(const AmxRow &t, ptrdiff_t column, float *window) {
        for (ptrdiff_t i = 0; i < t.Kh; i++) {
            const ptrdiff_t y = t.y + i * t.Dh;
            for (ptrdiff_t j = 0; j < t.across / t.C; j++) {
                const bool inside = y >= 0 && y < t.H && column + j >= 0 && column + j < t.W;
                const float *x = (const float *)t.x + (inside ? (y * t.W + column + j) * t.x_pitch : 0);
                store(window + i * t.across + j * t.C, amx_lanes(x, inside ? (1u << t.C) - 1 : 0));
            }
        }
    }
};

// There is AVX-512 wherever there are tiles.
template <class Kernel, class... Args>
inline void amx_run(Args... args) {
#if defined(__x86_64__)
    run_avx512<Kernel>(args...);
#endif
}

template <int Pieces>
inline void amx_split_into(const AmxRow *row) {
    if (row->size) amx_run<AmxWindows<Pieces>>(row);
    else amx_run<AmxSplit<Pieces>>(row);
}
inline void amx_split(const AmxRow *row, int pieces) {
    if (row->x_bytes == 2) amx_run<AmxSplit<1, uint16_t>>(row);
    else if (pieces == 1) amx_split_into<1>(row);
    else if (pieces == 2) amx_split_into<2>(row);
    else amx_split_into<3>(row);
}

}  // namespace jsc
