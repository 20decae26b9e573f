// What CPO and CPS share: the order of the columns, and the convolution of compressed columns.
//
// A column of the map is read by some output windows: those it is read by, and through which kernel
// column, depend on the shape alone. Columns are stored in *stream order*: by the number of windows
// that read them (the pattern), then by the leftmost of these windows, then from left to right.
// Columns that share pattern and leftmost window are a *group*; Ptr counts the non-zeros up to groups.
//
//   Ptr[e] = start[ptr_last[e]] - start[ptr_first[e]],   start[t] = non-zeros before stream column t
//
// Convolution, for a strip of output rows, band by band: the streams of the channels are merged into a
// small channels-last tile of values and a 64-bit occupancy mask per pixel and 64 channels, which stay
// in L1/L2; the CPC sweep (cpc.h) then multiplies from them. The walk is paid once for all filters and
// only moves non-zeros; the memory outside the tile stays compressed. The order of additions is that of
// CPC, whatever the bands.
#pragma once
#include <cstring>

#include "cpc_task.h"
#include "simd.h"

namespace jsc {

struct ColumnPlan {
    ptrdiff_t H, W, Kw, Ph;
    ptrdiff_t columns, entries;              // stream columns, entries of Ptr
    const int32_t *slot;                     // (W) place in stream order, -1 where no window reads
    const int32_t *column, *kernel_column;   // (columns) map column; kernel column in the leftmost window
    const int32_t *rank;                     // (columns) place within the group
    const int32_t *ptr_first, *ptr_last;     // (entries)
};

// Counts per stream column, held at start[t + 1], become first places held there too: the fill then
// uses start[t + 1] as its cursor and leaves it at the end of column t, the start of column t + 1.
JSC_INLINE ptrdiff_t counts_to_cursors(int32_t *start, ptrdiff_t columns) {
    int32_t total = 0;
    start[0] = 0;
    for (ptrdiff_t t = 1; t <= columns; t++) {
        int32_t count = start[t];
        start[t] = total;
        total += count;
    }
    return total;
}

template <class Index>
JSC_INLINE void write_ptr(const ColumnPlan *plan, const int32_t *start, Index *ptr) {
    for (ptrdiff_t e = 0; e < plan->entries; e++)
        ptr[e] = (Index)(start[plan->ptr_last[e]] - start[plan->ptr_first[e]]);
}

// The places of groups from Ptr; false when Ptr is not one of `total` non-zeros.
template <class Index>
JSC_INLINE bool read_ptr(const ColumnPlan *plan, const Index *ptr, int64_t total, int32_t *start) {
    ptrdiff_t known = 0;  // start[0 .. known] are set, at group boundaries
    start[0] = 0;
    if (total > (int64_t)plan->H * plan->W) return false;
    for (ptrdiff_t e = 0; e < plan->entries; e++) {
        ptrdiff_t last = plan->ptr_last[e];
        int64_t place = start[plan->ptr_first[e]] + (int64_t)ptr[e];
        if (ptr[e] < 0 || place > total || place < start[known] || (last == known && place != start[known])) return false;
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

// ---- convolution -----------------------------------------------------------------------------------

// A strip of output rows of one image, for some blocks of filters.
template <class T>
struct ColumnTask {
    ColumnPlan plan;
    const T *values;                  // of the whole batch; `value_offset[c]` is where channel c's begin
    const void *index;
    const int64_t *value_offset, *index_offset;
    const int32_t *value_start, *index_start;  // (C, columns + 1) of the image
    int32_t *cursor;                  // (2, columns, C) scratch
    T *tile;                          // (tile_rows, W, C) scratch
    uint64_t *mask;                   // (sets, tile_rows, W) scratch
    ptrdiff_t tile_rows;              // at most
    ptrdiff_t row0, rows, band_rows;  // output rows of the strip, rows of a band
    ptrdiff_t blocks;                 // blocks of filters
    CpcBandFunction<T> band;          // the sweep over a band of the tile
    CpcTask<T> sweep;                 // everything else: weights, bias, output, geometry

    ptrdiff_t C() const { return sweep.C; }
};

// Input rows of a band that are not padding, and the first that the next band reads.
struct BandRows {
    ptrdiff_t first, split, last;
};

// `Walk<T>` writes the tile: `seek` puts the cursors at an input row, `merge` walks one band and
// leaves the cursors at its `split`. Rows of the tile are multiples of Walk::unit.
template <class T, class Walk>
inline void column_strip(int isa, int V, const ColumnTask<T> *given) {
    ColumnTask<T> t = *given;
    CpcTask<T> s = t.sweep;
    const ptrdiff_t unit = Walk::unit, sets = (s.C + CPC_SET - 1) / CPC_SET;
    const ptrdiff_t filters = s.filters, VL = V * (ptrdiff_t)((isa == 2 ? 64 : isa == 1 ? 32 : 16) / sizeof(T));
    auto input_row = [&t](ptrdiff_t y) { return y * t.sweep.Sh - t.sweep.Ph; };
    auto clamp = [&t](ptrdiff_t i) { return i < 0 ? 0 : i > t.plan.H ? t.plan.H : i; };
    for (ptrdiff_t y = t.row0; y < t.row0 + t.rows; y += t.band_rows) {
        ptrdiff_t rows = t.row0 + t.rows - y < t.band_rows ? t.row0 + t.rows - y : t.band_rows;
        BandRows band;
        band.first = clamp(input_row(y)) / unit * unit;
        band.split = clamp(input_row(y + rows)) / unit * unit;
        band.last = clamp(input_row(y + rows - 1) + (s.Kh - 1) * s.Dh + 1);
        if (band.last < band.first) band.last = band.first;
        band.last = band.first + (band.last - band.first + unit - 1) / unit * unit;
        ptrdiff_t height = band.last - band.first;
        if (y == t.row0) Walk::seek(isa, &t, band.first);
        memset(t.mask, 0, sizeof(uint64_t) * sets * height * t.plan.W);
        Walk::merge(isa, &t, band);

        s.x = t.tile;
        s.mask = t.mask;
        s.H = height;
        s.Ph = band.first - input_row(y);
        s.row0 = 0;
        s.rows = rows;
        for (ptrdiff_t b = 0; b < t.blocks; b++) {
            s.weight = t.sweep.weight + b * sets * s.Kh * CPC_SET * s.Kw * VL;
            s.bias = t.sweep.bias ? t.sweep.bias + b * VL : nullptr;
            s.out = t.sweep.out + y * s.Ow * s.K + b * VL;
            s.filters = filters - b * VL < VL ? filters - b * VL : VL;
            t.band(isa, V, &s);
        }
    }
}

}  // namespace jsc
