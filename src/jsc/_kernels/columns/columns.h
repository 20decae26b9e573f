// What CPO and CPS share: the order of the columns, and the convolution of compressed columns (walk.h).
//
// A column of the map is read by some output windows: those it is read by, and through which kernel
// column, depend on the shape alone. Columns are stored in *stream order*: by the number of windows
// that read them (the pattern), then by the leftmost of these windows, then from left to right.
// Columns that share pattern and leftmost window are a *group*; Ptr counts the non-zeros up to groups.
//
//   Ptr[e] = start[ptr_last[e]] - start[ptr_first[e]],   start[t] = non-zeros before stream column t
//
// Encoding is one pass: a plane (or one column of L channels of a channels-last map) is transposed in
// registers, L x L elements at a time, so that columns are contiguous; their non-zeros are then
// compressed in stream order into a region of the plane's own, and rows of 64 make the mask from
// which the format writes its indices.
//
// Convolution: the index streams become a bit per element again (`rows`: 64 rows of a column to a
// word); for bands of output rows, the values of L channels and L rows are expanded and transposed
// into a channels-last tile, with a 64-bit occupancy mask per pixel and 64 channels, which stay in L2;
// the CPC sweep (cpc/sweep.h) then multiplies from them. The walk is paid once for all filters; the memory
// outside the tile stays compressed. The order of additions is that of CPC, whatever the bands.
//
// Versions (time relative to im2col at density .5 / .2, encoding included, the better of planar and
// channels-last input; 3x3, one thread of a Xeon at 2.8 GHz with AVX-512 that was shared with other
// work: ranges are those of repeated runs, single figures are one run)
//                                                         64 at 56          128 at 28         256 at 14
//   count, fill; merge element by element, cursors         .86/.54           .87/.64           .95/.68
//   transposed encoding and walk, tile set by set          .59/.38           .71/.36           .71/.44
//   row masks while encoding, no spills in the walk   .42-.61/.23-.39   .64-.80/.41-.48   .60-.67/.40-.43
// What remains over CPC, for each element of the map, zero or not: encoding (1.8 to 2.6 cycles
// measured on that machine before the last version, 4.5 on 14 x 14 maps) and the walk; and some 20 us
// more per call outside the kernels. Both weigh most where an element has few products: pointwise
// kernels take 1.1 to 5 times as long as im2col (results/paper.md).
#pragma once
#include <cstring>

#include "simd/simd.h"

namespace jsc {

constexpr ptrdiff_t COLUMN_ROOM = 16;  // elements that may be read and written behind a plane's streams

struct ColumnPlan {
    ptrdiff_t H, W, Kw, Ph;
    ptrdiff_t columns, entries;              // stream columns, entries of Ptr
    const int32_t *column, *kernel_column;   // (columns) map column; kernel column in the leftmost window
    const int32_t *rank;                     // (columns) place within the group
    const int32_t *ptr_first, *ptr_last;     // (entries)

    ptrdiff_t words() const { return (H + 63) / 64; }  // of row masks to a column

    // Elements of a plane's regions: room for a full plane. Memory that is not written is not touched either.
    ptrdiff_t value_room() const { return padded(H * W) + COLUMN_ROOM; }
    ptrdiff_t index_room(bool sets) const { return padded(sets ? (H + 3) / 4 * W : H * W) + COLUMN_ROOM; }
    ptrdiff_t transposed() const { return padded(H) * padded(W); }  // scratch of a thread that encodes

    static ptrdiff_t padded(ptrdiff_t n) { return (n + COLUMN_ROOM - 1) / COLUMN_ROOM * COLUMN_ROOM; }
};

// ---- encode ----------------------------------------------------------------------------------------

// Streams of one plane; `start` and `word` (columns + 1) are where the columns begin in DA and IN.
// A format whose index has one entry for each value has no `word`.
template <class T, class Index>
struct ColumnStreams {
    T *DA;
    Index *IN;
    int32_t *start, *word;
};

// Appends the non-zeros of L rows; they must be there to be overwritten up to L elements on.
template <class I, class T>
JSC_INLINE uint32_t append_values(const T *x, T *DA) {
    Vec<I, T> v = load<Vec<I, T>>(x);
    uint32_t bits;
    if constexpr (I::bytes == 64) {
        store(DA, compress_nonzero(v, bits));
    } else {
        bits = nonzero_mask(v);
        for (uint32_t left = bits; left; left &= left - 1) *DA++ = x[__builtin_ctz(left)];
    }
    return bits;
}

// One column, contiguous and padded with zeros to a multiple of L rows.
template <class I, class T, class Format, class Index>
JSC_INLINE void encode_column(const ColumnPlan *plan, ptrdiff_t k, const T *x, ColumnStreams<T, Index> s) {
    constexpr int L = lanes<I, T>;
    const ptrdiff_t padded = (plan->H + L - 1) / L * L;
    int32_t n = s.start[k], w = s.word ? s.word[k] : n;
    for (ptrdiff_t i = 0; i < padded; i += 64) {
        uint64_t rows = 0;
        for (ptrdiff_t r = i; r < i + 64 && r < padded; r += L) {
            uint32_t bits = append_values<I>(x + r, s.DA + n);
            rows |= (uint64_t)bits << (r - i);
            n += __builtin_popcount(bits);
        }
        w = Format::template append<I>(plan, k, i, rows, s.IN, w);
    }
    s.start[k + 1] = n;
    if (s.word) s.word[k + 1] = w;
}

// A vector of map elements; beyond `end`, the end of the whole map, are zeros.
template <class V, class T>
JSC_INLINE V load_before(const T *x, const T *end) {
    constexpr int L = sizeof(V) / sizeof(T);
    if (x + L <= end) return load<V>(x);
    return load_partial<V>(x, x < end ? (int)(end - x) : 0);
}

// L x L elements of a map, of which `rows` exist, transposed into `to`.
template <class I, class T>
JSC_INLINE void transpose_block(const T *x, ptrdiff_t step, ptrdiff_t rows, const T *end, T *to,
                                ptrdiff_t to_step) {
    using V = Vec<I, T>;
    constexpr int L = lanes<I, T>;
    V v[L];
    if (rows >= L && x + (L - 1) * step + L <= end) {
#pragma GCC unroll 16
        for (int r = 0; r < L; r++) v[r] = load<V>(x + r * step);
    } else {
#pragma GCC unroll 16
        for (int r = 0; r < L; r++) v[r] = r < rows ? load_before<V>(x + r * step, end) : V{};
    }
    transpose<I, T>(v);
#pragma GCC unroll 16
    for (int l = 0; l < L; l++) store(to + l * to_step, v[l]);
}

// A plane (H, W). `scratch` has room for W columns of H rows, both rounded up to multiples of 16.
template <class T, class Index, class Format>
struct EncodePlane {
    template <class I>
    JSC_INLINE void run(const ColumnPlan *plan, const T *x, const T *end, T *scratch,
                        const ColumnStreams<T, Index> *streams) {
        constexpr int L = lanes<I, T>;
        const ColumnPlan p = *plan;
        const ptrdiff_t padded = (p.H + L - 1) / L * L;
        for (ptrdiff_t i = 0; i < p.H; i += L)
            for (ptrdiff_t j = 0; j < p.W; j += L) {
                transpose_block<I>(x + i * p.W + j, p.W, p.H - i, end, scratch + j * padded + i, padded);
            }
        const ColumnStreams<T, Index> s = *streams;
        s.start[0] = 0;
        if (s.word) s.word[0] = 0;
        for (ptrdiff_t k = 0; k < p.columns; k++)
            encode_column<I, T, Format>(&p, k, scratch + p.column[k] * padded, s);
    }
};

// `channels` <= L channels of a channels-last image (H, W, C). Streams are `value_step`, ... apart.
template <class T, class Index, class Format>
struct EncodePixels {
    template <class I>
    JSC_INLINE void run(const ColumnPlan *plan, const T *x, const T *end, ptrdiff_t C, ptrdiff_t channels,
                        T *scratch, const ColumnStreams<T, Index> *streams, ptrdiff_t value_step,
                        ptrdiff_t index_step) {
        constexpr int L = lanes<I, T>;
        const ColumnPlan p = *plan;
        const ptrdiff_t padded = (p.H + L - 1) / L * L, starts = p.columns + 1;
        const ColumnStreams<T, Index> first = *streams;
        for (ptrdiff_t c = 0; c < channels; c++) {
            first.start[c * starts] = 0;
            if (first.word) first.word[c * starts] = 0;
        }
        for (ptrdiff_t k = 0; k < p.columns; k++) {
            const T *column = x + p.column[k] * C;
            for (ptrdiff_t i = 0; i < p.H; i += L) {
                transpose_block<I>(column + i * p.W * C, p.W * C, p.H - i, end, scratch + i, padded);
            }
            for (ptrdiff_t c = 0; c < channels; c++) {
                ColumnStreams<T, Index> s = {first.DA + c * value_step, first.IN + c * index_step,
                                             first.start + c * starts,
                                             first.word ? first.word + c * starts : nullptr};
                encode_column<I, T, Format>(&p, k, scratch + c * padded, s);
            }
        }
    }
};

// ---- decode ----------------------------------------------------------------------------------------

// The places of groups from Ptr; false when Ptr is not one of `total` non-zeros.
template <class Index>
JSC_INLINE bool read_ptr(const ColumnPlan *plan, const Index *ptr, int64_t total, int32_t *start) {
    ptrdiff_t known = 0;  // start[0 .. known] are set, at group boundaries
    start[0] = 0;
    if (total > (int64_t)plan->H * plan->W) return false;
    for (ptrdiff_t e = 0; e < plan->entries; e++) {
        ptrdiff_t last = plan->ptr_last[e];
        int64_t place = start[plan->ptr_first[e]] + (int64_t)ptr[e];
        if (ptr[e] < 0 || place > total || place < start[known] || (last == known && place != start[known]))
            return false;
        start[last] = (int32_t)place;
        known = last;
    }
    return start[plan->columns] == total;
}

JSC_INLINE ptrdiff_t group_end(const ColumnPlan *plan, ptrdiff_t t) {
    do t++;
    while (t < plan->columns && plan->rank[t]);
    return t;
}

// ---- row masks -------------------------------------------------------------------------------------

// 8 lanes of 64 bits, and their sum of bits.
using Words = VectorOf<uint64_t, 64>::type;
JSC_INLINE uint64_t or_lanes(Words v) {
    v |= shuffle<4, 5, 6, 7, 0, 1, 2, 3>(v, v);
    v |= shuffle<2, 3, 0, 1, 6, 7, 4, 5>(v, v);
    v |= shuffle<1, 0, 3, 2, 5, 4, 7, 6>(v, v);
    return v[0];
}

}  // namespace jsc
