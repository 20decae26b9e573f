// From compressed columns (columns.h) to bands of a channels-last tile, and the CPC sweep over them.
#pragma once
#include <cstring>

#include "columns/columns.h"
#include "cpc/task.h"

namespace jsc {

// A strip of output rows of one image, for some blocks of filters.
template <class T>
struct ColumnTask {
    ColumnPlan plan;
    const T *values;                  // (C, value_step)
    const uint64_t *rows;             // (C, columns, words)
    const int32_t *start;             // (C, columns + 1)
    ptrdiff_t value_step;
    T *tile;                          // (sets, tile_rows, row_step) scratch
    uint64_t *mask;                   // (sets, tile_rows, W) scratch
    ptrdiff_t tile_rows;              // at most
    ptrdiff_t row0, out_rows;         // output rows of the strip
    ptrdiff_t band_rows, sweep_rows;  // output rows to a tile, and of these to a sweep
    ptrdiff_t blocks;                 // blocks of filters
    CpcBandFunction<T> band;          // the sweep over a band of the tile
    CpcTask<T> sweep;  // everything else: weights, bias, output, geometry, steps of the tile
};

JSC_INLINE int32_t rows_above(const uint64_t *rows, ptrdiff_t i) {
    int32_t n = 0;
    for (; i >= 64; i -= 64) n += __builtin_popcountll(*rows++);
    return i ? n + __builtin_popcountll(*rows << (64 - i)) : n;
}

// Row masks of `count` <= 64 rows from i on.
JSC_INLINE uint64_t rows_from(const uint64_t *rows, ptrdiff_t i, ptrdiff_t count) {
    const ptrdiff_t shift = i % 64;
    uint64_t bits = rows[i / 64] >> shift;
    if (shift + count > 64) bits |= rows[i / 64 + 1] << (64 - shift);
    return bits & (~0ull >> (64 - count));
}

// Map rows first .. first + height, into tile rows 0 .. height; masks are zero before.
template <class T>
struct ColumnWalk {
    template <class I>
    JSC_INLINE void run(const ColumnTask<T> *task, ptrdiff_t first, ptrdiff_t height) {
        const ColumnTask<T> t = *task;
        const ptrdiff_t C = t.sweep.C, W = t.plan.W, columns = t.plan.columns, words = t.plan.words();
        const ptrdiff_t row_step = t.sweep.row_step;
        constexpr int L = lanes<I, T>;
        for (ptrdiff_t c0 = 0; c0 < C; c0 += CPC_SET)
            // Columns outside, channels inside: a line of values serves neighbouring columns while it is in
            // L1.
            for (ptrdiff_t k = 0; k < columns; k++) {
                uint64_t *mask = t.mask + c0 / CPC_SET * height * W + t.plan.column[k];
                T *tile = t.tile + c0 / CPC_SET * t.sweep.set_step + t.plan.column[k] * t.sweep.pixel_step;
                const ptrdiff_t channels = C - c0 < CPC_SET ? C - c0 : CPC_SET;
                if constexpr (I::bytes == 64) {
                    for (ptrdiff_t g = 0; g < channels; g += L)
                        merge<I>(&t, c0 + g, k, first, height, tile + g, mask, g);
                } else {
                    for (ptrdiff_t c = 0; c < channels; c++) {
                        const uint64_t *rows = t.rows + ((c0 + c) * columns + k) * words;
                        const T *DA =
                            t.values + (c0 + c) * t.value_step + t.start[(c0 + c) * (columns + 1) + k];
                        DA += rows_above(rows, first);
                        for (ptrdiff_t i = 0; i < height; i += 64)
                            for (uint64_t bits =
                                     rows_from(rows, first + i, height - i < 64 ? height - i : 64);
                                 bits; bits &= bits - 1) {
                                ptrdiff_t row = i + __builtin_ctzll(bits);
                                mask[row * W] |= 1ull << c;
                                tile[row * row_step + c] = *DA++;
                            }
                    }
                }
            }
    }

    // L channels from c on, which are bits g .. g + L of the masks.
    template <class I>
    JSC_INLINE void merge(const ColumnTask<T> *t, ptrdiff_t c, ptrdiff_t k, ptrdiff_t first, ptrdiff_t height,
                          T *tile, uint64_t *mask, ptrdiff_t g) {
        using V = Vec<I, T>;
        constexpr int L = lanes<I, T>;
        typedef std::conditional_t<L == 16, uint16_t, uint8_t> Bits __attribute__((may_alias));
        const ptrdiff_t columns = t->plan.columns, words = t->plan.words(), C = t->sweep.C, W = t->plan.W,
                        row_step = t->sweep.row_step;
        // Arrays that a loop with a variable index fills stay in memory: in registers they would be spilt.
        const T *next[L], *at[L];
        uint32_t bits[L];
        const uint64_t *rows = t->rows + (c * columns + k) * words;
        const int32_t *start = t->start + c * (columns + 1) + k;
        const int channels = C - c < L ? (int)(C - c) : L;
        for (int q = 0; q < L; q++) next[q] = at[q] = t->values, bits[q] = 0;
#pragma GCC unroll 1
        for (int q = 0; q < channels; q++)
            next[q] += (c + q) * t->value_step + start[q * (columns + 1)] +
                       rows_above(rows + q * columns * words, first);
        T *to = tile;
        Bits *bit = (Bits *)mask + g / L;
        const ptrdiff_t mask_step = W * (ptrdiff_t)(sizeof(uint64_t) / sizeof(Bits));
        for (ptrdiff_t i = 0; i < height; i += L) {
            const ptrdiff_t count = height - i < L ? height - i : L;
#pragma GCC unroll 1
            for (int q = 0; q < channels; q++) {
                bits[q] = (uint32_t)rows_from(rows + q * columns * words, first + i, count);
                at[q] = next[q];
                next[q] += __builtin_popcount(bits[q]);
            }
            V v[L];
#pragma GCC unroll 16
            for (int q = 0; q < L; q++) v[q] = expand_lanes(load<V>(at[q]), bits[q]);
            transpose<I, T>(v);
#pragma GCC unroll 16
            for (int r = 0; r < L; r++) {
                if (r == count) break;
                store(to, v[r]);
                *bit = (Bits)nonzero_mask(v[r]);
                to += row_step;
                bit += mask_step;
                keep_in_register(to);  // else 16 row offsets are computed in advance, and spilt
                keep_in_register(bit);
            }
        }
    }
};

template <class T>
inline void column_strip(int isa, int V, const ColumnTask<T> *given) {
    const ColumnTask<T> t = *given;
    CpcTask<T> s = t.sweep;
    const ptrdiff_t sets = (s.C + CPC_SET - 1) / CPC_SET;
    const ptrdiff_t filters = s.filters, VL = V * (ptrdiff_t)((isa == 2   ? 64
                                                               : isa == 1 ? 32
                                                                          : 16) /
                                                              sizeof(T));
    auto input_row = [&t](ptrdiff_t y) { return y * t.sweep.Sh - t.sweep.Ph; };
    auto clamp = [&t](ptrdiff_t i) { return i < 0 ? 0 : i > t.plan.H ? t.plan.H : i; };
    for (ptrdiff_t y0 = t.row0; y0 < t.row0 + t.out_rows; y0 += t.band_rows) {
        const ptrdiff_t end = y0 + t.band_rows < t.row0 + t.out_rows ? y0 + t.band_rows : t.row0 + t.out_rows;
        const ptrdiff_t first = clamp(input_row(y0)),
                        last = clamp(input_row(end - 1) + (s.Kh - 1) * s.Dh + 1);
        const ptrdiff_t height = last > first ? last - first : 0;
        memset(t.mask, 0, sizeof(uint64_t) * sets * height * t.plan.W);
        if (height) dispatch<ColumnWalk<T>>(isa, given, first, height);
        s.x = t.tile;
        s.mask = t.mask;
        s.H = height;
        s.row0 = 0;
        for (ptrdiff_t y = y0; y < end; y += t.sweep_rows) {
            s.rows = end - y < t.sweep_rows ? end - y : t.sweep_rows;
            s.Ph = first - input_row(y);
            for (ptrdiff_t b = 0; b < t.blocks; b++) {
                s.weight = t.sweep.weight + b * sets * s.Kh * CPC_SET * s.Kw * VL;
                s.bias = t.sweep.bias ? t.sweep.bias + b * VL : nullptr;
                s.out = t.sweep.out + y * s.Ow * s.out_pitch + b * VL;
                s.filters = filters - b * VL < VL ? filters - b * VL : VL;
                t.band(isa, V, &s);
            }
        }
    }
}

}  // namespace jsc
