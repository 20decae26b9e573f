// CPC (Compressed Pattern Channels): convolution that multiplies only the non-zero activations.
//
//   out[k, y, x] = bias[k] + sum_{c, i, j} in[c, y Sh + i Dh - Ph, x Sw + j Dw - Pw] weight[k, c, i, j]
//
// Layout
//   input    channels-last (N, H, W, C): the values stay where they are
//   masks    (N, sets, H, W) 64-bit: bit b of set s is set where channel 64 s + b is not zero
//   weights  (K blocks, sets, Kh, 64 channels, Kw, V L): L lanes, V vectors of filters to a block,
//            zero where there is no filter or channel; aligned to 64 bytes
//   tile     (rows of the band, Ow, V L): partial sums of one task, in L1 or L2
//
// One task owns a band of output rows of one image for one block of filters. For every set and kernel
// row it sweeps the input rows from left to right, two pixels at a time: it walks the channels that are
// non-zero in both, then those in one of them. Each costs a broadcast or two and Kw V multiply-adds for
// each pixel, with weights straight from L1, into accumulators that live in registers: the outputs that
// the pixels are part of. Then the finished outputs are stored and the others shifted (a renaming of
// registers). Two pixels, because a multiply-add with its weight in memory is bound by the load, and
// neighbours are mostly non-zero in the same channels: then one load serves two products.
// Padding costs nothing: an absent pixel has no non-zeros.
//
// Ladder (ms, the sweep alone, one thread of a Xeon with AVX-512 and 48 kB of L1, activations of density
// .5 / .2; the multiply-adds alone, from registers, would take .57 / .23)
//                                                   3x3 128 at 28   1x1 256-64 at 56   3x3 s2 128 at 56
//   pairs of pixels, weights kept in registers         1.04 / .47        .72 / .42        1.26 / .64
//   + the pixels ahead prefetched                       .97 / .46        .58 / .33        1.08 / .54
//   + half a set at a time where L1 is too small        .89 / .44              -          1.11 / .61
// Tried and dropped: one loop over the channels of either pixel (12 to 30 % slower), the lone channels of
// both pixels side by side (no difference), tiles of 16 to 128 kB (none), half as many filters to a
// block (7 % slower), quarters of a set (15 % slower). What bounds it, cause by cause, is measured by
// `python -m benchmarks bottlenecks`.
//
// Numerics: an output is its bias, and one sum after the other for each set, kernel row and, where a set's
// weights are too many for L1, half of it. Such a sum starts from zero and adds its products from the left
// pixel to the right, of a pair of pixels the channels that are non-zero in both first: the same bits for
// every thread count, band height and batch split. Zeros are skipped, NaN and inf are not. Sums of at most
// 64 channels and a kernel row keep the error small: when all products went into one sum, it was above
// twice torch's in 56 layers of seven networks, most of them 1x1 of many channels, and `compile` had to take
// another method there. No time could be measured that it costs: a sum is read when it is written, where it
// was read before.
//
// A residual is added and ReLU taken as outputs are stored, with the bits of the operators one by one.
#pragma once
#include "cpc/task.h"
#include "simd/simd.h"

namespace jsc {

// ---- sweeps --------------------------------------------------------------------------------------

// Adds weight rows times one channel's value to the accumulators a[first + t], t = 0, 1, ...
template <class I, class T, int V, int Taps, int S, int Phase, int Live>
JSC_INLINE void cpc_one(Vec<I, T> a[][V], T value, const T *w) {
#pragma GCC unroll 8
    for (int t = 0; t < Live; t++)
        if (Phase + S * t < Taps)
#pragma GCC unroll 8
            for (int v = 0; v < V; v++)
                a[t][v] += value * load<Vec<I, T>>(w + ((Phase + S * t) * V + v) * lanes<I, T>);
}

// The same for two pixels that are both non-zero: each weight is loaded once for two products.
template <class I, class T, int V, int Taps, int S, int Phase, int Live>
JSC_INLINE void cpc_both(Vec<I, T> a[][V], T left, T right, const T *w) {
#pragma GCC unroll 8
    for (int t = 0; t < Live; t++)
        if (Phase + S * t < Taps)
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) {
                Vec<I, T> weight = load<Vec<I, T>>(w + ((Phase + S * t) * V + v) * lanes<I, T>);
                keep_in_register(weight);
                a[t + 1][v] += left * weight;
                a[t][v] += right * weight;
            }
}

// One phase of a pair of outputs o, o + 1: pixels `left` and `right` of the same channel set, whose
// products through tap Phase + S t go to the outputs o - t (a[t + 1]) and o + 1 - t (a[t]).
template <class I, class T, int V, int Taps, int S, int Phase, int Live>
JSC_INLINE void cpc_pair(Vec<I, T> a[][V], const T *left, const T *right, uint64_t left_bits,
                         uint64_t right_bits, const T *weight, ptrdiff_t channel_step) {
    for (uint64_t bits = left_bits & right_bits; bits; bits &= bits - 1) {
        int c = __builtin_ctzll(bits);
        const T *w = weight + c * channel_step;
        keep_in_register(w);
        cpc_both<I, T, V, Taps, S, Phase, Live>(a, left[c], right[c], w);
    }
    for (uint64_t bits = left_bits & ~right_bits; bits; bits &= bits - 1) {
        int c = __builtin_ctzll(bits);
        const T *w = weight + c * channel_step;
        keep_in_register(w);
        cpc_one<I, T, V, Taps, S, Phase, Live>(a + 1, left[c], w);
    }
    for (uint64_t bits = right_bits & ~left_bits; bits; bits &= bits - 1) {
        int c = __builtin_ctzll(bits);
        const T *w = weight + c * channel_step;
        keep_in_register(w);
        cpc_one<I, T, V, Taps, S, Phase, Live>(a, right[c], w);
    }
}

// A pixel's sums onto those of the sets and kernel rows before.
template <class I, class T, int V>
JSC_INLINE void cpc_add(T *out, const Vec<I, T> *a) {
    constexpr int L = lanes<I, T>;
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) store(out + v * L, load<Vec<I, T>>(out + v * L) + a[v]);
}

// A set's channels of a pixel are a few cache lines, and far from those of the next pixel: no hardware
// prefetcher foresees them. `ahead` is a pixel some pairs on; it need not exist.
template <class T>
JSC_INLINE void cpc_prefetch(const T *ahead, ptrdiff_t next) {
#pragma GCC unroll 8
    for (int c = 0; c < CPC_SET; c += 64 / (int)sizeof(T)) {
        __builtin_prefetch(ahead + c);
        __builtin_prefetch(ahead + next + c);
    }
}
constexpr int CPC_AHEAD = 4;

// `count` weights that come next, to the second cache.
template <class T>
JSC_INLINE void cpc_fetch(const T *from, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += 64 / (int)sizeof(T)) __builtin_prefetch(from + i, 0, 2);
}

// Columns of partial sums that a sweep may touch beyond either end of an output row.
constexpr int cpc_margin(int Taps, int S) { return (Taps + S - 1) / S + 1; }

// Adds one input row to one output row, for one set, one kernel row and all `Taps` kernel columns; of
// the set, only the channels whose bits are set in `channels`.
// `x` and `mask` point at the row's first pixel, `out` at output 0, with `cpc_margin` columns on
// either side. With p = column + Pw, a pixel is part of the outputs p / S - t through tap p % S + S t.
template <class I, class T, int V, int Taps, int S>
JSC_INLINE void cpc_sweep(const T *x, const uint64_t *mask, ptrdiff_t step, ptrdiff_t W, ptrdiff_t Ow,
                          ptrdiff_t Pw, const T *weight, ptrdiff_t channel_step, uint64_t channels, T *out) {
    using V_ = Vec<I, T>;
    constexpr int L = lanes<I, T>, Live = (Taps + S - 1) / S;
    V_ a[Live + 1][V];  // a[q]: output o + 1 - q
    ptrdiff_t o = Pw / S, column = o * S - Pw;  // from the first multiple of S: columns < 0 are absent
    if (o >= Ow + Live) return;  // the padding hides every pixel from every output
#pragma GCC unroll 8
    for (int q = 2; q <= Live; q++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) a[q][v] = V_{};
    for (; column < W && o < Ow + Live; o += 2, column += 2 * S) {
#pragma GCC unroll 2
        for (int q = 0; q < 2; q++)
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) a[q][v] = V_{};
#define JSC_PHASE(phase)                                                                                     \
    {                                                                                                        \
        ptrdiff_t left = column + phase, right = left + S;                                                   \
        uint64_t left_bits = left >= 0 && left < W ? mask[left] & channels : 0;                              \
        uint64_t right_bits = right < W ? mask[right] & channels : 0;                                        \
        cpc_prefetch(x + (left + CPC_AHEAD * S) * step, S * step);                                           \
        cpc_pair<I, T, V, Taps, S, phase, Live>(a, x + left * step, x + right * step, left_bits, right_bits, \
                                                weight, channel_step);                                       \
    }
        JSC_PHASE(0)
        if constexpr (S == 2 && Taps > 1) JSC_PHASE(1)
#undef JSC_PHASE
#pragma GCC unroll 2
        for (int q = Live - 1; q <= Live; q++) cpc_add<I, T, V>(out + (o + 1 - q) * V * L, a[q]);
#pragma GCC unroll 8
        for (int q = Live; q > 1; q--)
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) a[q][v] = a[q - 2][v];
    }
#pragma GCC unroll 8
    for (int q = 2; q <= Live; q++) cpc_add<I, T, V>(out + (o + 1 - q) * V * L, a[q]);
}

// The same for a single kernel column and any stride: `offset` is the column's j Dw - Pw.
template <class I, class T, int V>
JSC_INLINE void cpc_points(const T *x, const uint64_t *mask, ptrdiff_t step, ptrdiff_t W, ptrdiff_t Ow,
                           ptrdiff_t Sw, ptrdiff_t offset, const T *weight, ptrdiff_t channel_step, T *out) {
    using V_ = Vec<I, T>;
    constexpr int L = lanes<I, T>;
    // From the first pair that has a pixel to the last. A stride wider than the map cannot be multiplied
    // freely.
    const ptrdiff_t first = offset < 0 ? (-offset - 1) / Sw : 0, near = Sw < W ? Sw : W;
    for (ptrdiff_t o = first & ~(ptrdiff_t)1; o < Ow && o * Sw + offset < W; o += 2) {
        ptrdiff_t left = o * Sw + offset, right = left + Sw;
        uint64_t left_bits = left >= 0 && left < W ? mask[left] : 0;
        uint64_t right_bits = right >= 0 && right < W && o + 1 < Ow ? mask[right] : 0;
        if (left >= 0) cpc_prefetch(x + (left + CPC_AHEAD * near) * step, near * step);
        if (!(left_bits | right_bits)) continue;
        if (!left_bits) left = 0;
        if (!right_bits) right = 0;
        V_ a[2][V];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) a[1][v] = a[0][v] = V_{};
        cpc_pair<I, T, V, 1, 1, 0, 1>(a, x + left * step, x + right * step, left_bits, right_bits, weight,
                                      channel_step);
        cpc_add<I, T, V>(out + o * V * L, a[1]);
        cpc_add<I, T, V>(out + (o + 1) * V * L, a[0]);
    }
}

// ---- one task ------------------------------------------------------------------------------------

// Finished sums of a band to the output: relu(sum + residual).
template <class I, class T, int V>
JSC_INLINE void cpc_store(const CpcTask<T> &t, const T *sums, ptrdiff_t row_step) {
    using V_ = Vec<I, T>;
    constexpr int L = lanes<I, T>, VL = V * L;
    for (ptrdiff_t r = 0; r < t.rows; r++)
        for (ptrdiff_t o = 0; o < t.Ow; o++) {
            T *out = t.out + r * t.out_row + o * t.out_pitch;
            const T *residual = t.residual ? t.residual + r * t.residual_row + o * t.residual_pitch : nullptr;
            const T *from = sums + r * row_step + o * VL;
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) {
                const ptrdiff_t k = v * L, n = t.filters - k;
                if (n <= 0) break;
                V_ value = load<V_>(from + k);
                if (residual)
                    value += n < L ? load_partial<V_>(residual + k, (int)n) : load<V_>(residual + k);
                if (t.relu) value = value < 0 ? V_{} : value;  // as torch's: NaN and -0.0 stay
                if (n < L) store_partial(out + k, value, (int)n);
                else store(out + k, value);
            }
        }
}

constexpr int CPC_WEIGHT_BYTES = 40 * 1024;

// Taps = 0: one kernel column at a time (any kernel width, stride and dilation); otherwise the kernel
// is `Taps` wide, not dilated horizontally, with horizontal stride S.
template <class T, int V, int Taps, int S>
struct CpcBand {
    template <class I>
    JSC_INLINE void run(const CpcTask<T> *task) {
        using V_ = Vec<I, T>;
        constexpr int L = lanes<I, T>;
        const CpcTask<T> t = *task;
        constexpr int margin = cpc_margin(Taps ? Taps : 1, S);
        const ptrdiff_t VL = V * L, row_step = (t.Ow + 2 * margin) * VL, sets = (t.C + CPC_SET - 1) / CPC_SET;
        const ptrdiff_t channel_step = t.Kw * VL;
        // While rows go past the weights of a set and kernel row, a share of the next ones is fetched for
        // each; behind the last ones lie those of the next block, whose task is next.
        const ptrdiff_t numbers = CPC_SET * channel_step;
        const ptrdiff_t share = t.rows ? (numbers / t.rows + 15) / 16 * 16 : 0;
        // The weights of a set and kernel row are to stay in L1 (32 or 48 kB) while rows go by.
        constexpr int parts = Taps * V * L * (int)sizeof(T) * CPC_SET > CPC_WEIGHT_BYTES ? 2 : 1;

        alignas(64) T start[V * L] = {};
        for (ptrdiff_t k = 0; t.bias && k < t.filters; k++) start[k] = t.bias[k];
        for (ptrdiff_t i = 0; i < t.rows * row_step; i += VL)
            for (int v = 0; v < V; v++) store(t.tile + i + v * L, load<V_>(start + v * L));

        for (ptrdiff_t s = 0; s < sets; s++) {
            const uint64_t *mask = t.mask + s * t.H * t.W;
            for (ptrdiff_t i = 0; i < t.Kh; i++) {
                const T *weight = t.weight + (s * t.Kh + i) * CPC_SET * channel_step;
                for (int part = 0; part < parts; part++) {
                    const uint64_t channels = ~0ull >> (CPC_SET - CPC_SET / parts)
                                                           << (CPC_SET / parts * part);
                    for (ptrdiff_t r = 0; r < t.rows; r++) {
                        ptrdiff_t y = (t.row0 + r) * t.Sh + i * t.Dh - t.Ph;
                        if (y < 0 || y >= t.H) continue;
                        if constexpr (Taps == 0) cpc_fetch(weight + numbers + r * share, share);
                        const T *x = t.x + y * t.row_step + s * t.set_step;
                        T *out = t.tile + r * row_step + margin * VL;
                        if constexpr (Taps > 0) {
                            cpc_sweep<I, T, V, Taps, S>(x, mask + y * t.W, t.pixel_step, t.W, t.Ow, t.Pw,
                                                        weight, channel_step, channels, out);
                        } else {
                            for (ptrdiff_t j = t.Kw - 1; j >= 0; j--)
                                cpc_points<I, T, V>(x, mask + y * t.W, t.pixel_step, t.W, t.Ow, t.Sw,
                                                    j * t.Dw - t.Pw, weight + j * VL, channel_step, out);
                        }
                    }
                }
            }
        }

        cpc_store<I, T, V>(t, t.tile + margin * VL, row_step);
    }
};

// ---- choice of a compiled variant ------------------------------------------------------------------

// Widths of sweep that are compiled; other kernels run column by column.
inline int cpc_taps(ptrdiff_t Kw, ptrdiff_t Sw, ptrdiff_t Dw) {
    bool compiled = (Kw == 2 || Kw == 3 || Kw == 5 || Kw == 7) && (Sw == 1 || Sw == 2) && Dw == 1;
    return compiled ? (int)Kw : 0;
}

// Columns of a row of a task's tile, margins included.
inline ptrdiff_t cpc_tile_columns(ptrdiff_t Kw, ptrdiff_t Sw, ptrdiff_t Dw, ptrdiff_t Ow) {
    const int taps = cpc_taps(Kw, Sw, Dw);
    return Ow + 2 * (taps ? cpc_margin(taps, (int)Sw) : cpc_margin(1, 1));
}

template <class T, int V, int S>
inline void cpc_band_taps(int isa, int taps, const CpcTask<T> *task) {
    switch (taps) {
    case 2: return dispatch<CpcBand<T, V, 2, S>>(isa, task);
    case 3: return dispatch<CpcBand<T, V, 3, S>>(isa, task);
    case 5: return dispatch<CpcBand<T, V, 5, S>>(isa, task);
    case 7: return dispatch<CpcBand<T, V, 7, S>>(isa, task);
    default: return dispatch<CpcBand<T, V, 0, 1>>(isa, task);
    }
}

template <class T, int V>
inline void cpc_band_stride(int isa, int taps, const CpcTask<T> *task) {
    if (taps && task->Sw == 2) return cpc_band_taps<T, V, 2>(isa, taps, task);
    return cpc_band_taps<T, V, 1>(isa, taps, task);
}

// `V` (1, 2, 4 or 8 vectors; 8 only for one column at a time) must be the one the weights are packed for.
template <class T>
inline void cpc_band(int isa, int V, const CpcTask<T> *task) {
    int taps = cpc_taps(task->Kw, task->Sw, task->Dw);
    switch (V) {
    case 1: return cpc_band_stride<T, 1>(isa, taps, task);
    case 2: return cpc_band_stride<T, 2>(isa, taps, task);
    case 4: return cpc_band_stride<T, 4>(isa, taps, task);
    default: return dispatch<CpcBand<T, 8, 0, 1>>(isa, task);
    }
}

}  // namespace jsc
