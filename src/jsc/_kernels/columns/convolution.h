// A whole convolution over CPO or CPS streams (columns.h) as rounds of tasks.
//
//   rounds   the input encoded; strips of output rows, each for some blocks of filters
//   scratch  the streams of all planes and their row masks; for each thread a transposed plane, a tile and
//            its masks, partial sums
#pragma once
#include "columns/formats.h"
#include "columns/walk.h"

namespace jsc {

// What does not change from call to call. Sizes are numbers of elements, addresses are 0 where there is
// nothing.
struct ColumnFields {
    ptrdiff_t N, C, H, W, K, Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw, Oh, Ow;
    ptrdiff_t vectors, block;  // vectors and filters to a block of weights
    ptrdiff_t strip_rows, group_blocks;  // output rows and blocks of filters of a task
    ptrdiff_t band_rows, sweep_rows;  // output rows to a tile, and of these to a sweep
    ptrdiff_t tile_rows, pixel_step, row_step;  // rows of a tile; elements from a pixel, row to the next
    ptrdiff_t row_sums;  // partial sums of a row of a sweep
    size_t weight, bias;  // (K blocks, sets, Kh, 64, Kw, block); (K)
};

template <class T>
struct ColumnConvolution : ColumnFields {
    ColumnPlan plan;
    ColumnFormat format;
    CpcBandFunction<T> sweep;
    bool channels_last;  // the input of this call, else planes
    ptrdiff_t threads;

    ColumnConvolution(const ColumnFields &fields, const ColumnPlan &plan, const ColumnFormat &format,
                      CpcBandFunction<T> sweep, bool channels_last, ptrdiff_t threads)
        : ColumnFields(fields), plan(plan), format(format), sweep(sweep), channels_last(channels_last),
          threads(threads) {}

    ptrdiff_t rounds() const { return 2; }
    ptrdiff_t tasks(int isa, ptrdiff_t round) const {
        return round == 0 ? shares(isa) : N * strips() * groups();
    }
    ptrdiff_t scratch_bytes() const { return thread_place() + threads * thread_bytes(); }
    void run(int isa, ptrdiff_t round, ptrdiff_t index, int thread, const T *x, T *out, char *scratch) const {
        char *own = scratch + thread_place() + thread * thread_bytes();
        const ColumnRegions<T> regions = places(scratch);
        if (round == 0) {
            const ColumnSource<T> from = source(x);
            const ptrdiff_t parts = from.parts(isa), end = (index + 1) * parts / shares(isa);
            for (ptrdiff_t part = index * parts / shares(isa); part < end; part++)
                column_encode(isa, format, &plan, from, part, (T *)own, regions);
        } else {
            strip(isa, index, regions, own + transposed_bytes(), out);
        }
    }

  private:
    static ptrdiff_t lines(ptrdiff_t bytes) { return (bytes + 63) / 64 * 64; }

    ptrdiff_t sets() const { return (C + CPC_SET - 1) / CPC_SET; }
    ptrdiff_t blocks() const { return (K + block - 1) / block; }
    ptrdiff_t strips() const { return (Oh + strip_rows - 1) / strip_rows; }
    ptrdiff_t groups() const { return (blocks() + group_blocks - 1) / group_blocks; }
    ColumnSource<T> source(const T *x) const { return {x, N * C, C, channels_last}; }
    // Planes are handed out by some shares a thread: one alone is soon done.
    ptrdiff_t shares(int isa) const {
        const ptrdiff_t parts = source(nullptr).parts(isa), wanted = threads == 1 ? 1 : 4 * threads;
        return parts < wanted ? parts : wanted;
    }

    ptrdiff_t value_bytes() const { return lines(N * C * plan.value_room() * sizeof(T)); }
    ptrdiff_t index_bytes() const {
        return lines(N * C * plan.index_room(format.sets) * format.index_bytes());
    }
    ptrdiff_t start_bytes() const { return lines(N * C * (plan.columns + 1) * sizeof(int32_t)); }
    ptrdiff_t row_bytes() const { return lines(N * C * plan.columns * plan.words() * sizeof(uint64_t)); }
    ptrdiff_t thread_place() const { return value_bytes() + index_bytes() + 2 * start_bytes() + row_bytes(); }
    ptrdiff_t transposed_bytes() const { return lines(plan.transposed() * sizeof(T)); }
    ptrdiff_t tile_bytes() const { return lines(sets() * tile_rows * row_step * sizeof(T)); }
    ptrdiff_t mask_bytes() const { return lines(sets() * tile_rows * W * sizeof(uint64_t)); }
    ptrdiff_t sum_bytes() const { return lines(sweep_rows * row_sums * sizeof(T)); }
    ptrdiff_t thread_bytes() const { return transposed_bytes() + tile_bytes() + mask_bytes() + sum_bytes(); }
    ColumnRegions<T> places(char *scratch) const {
        ColumnRegions<T> r;
        r.values = (T *)scratch;
        r.indices = scratch += value_bytes();
        r.start = (int32_t *)(scratch += index_bytes());
        r.word = (int32_t *)(scratch += start_bytes());
        r.rows = (uint64_t *)(scratch + start_bytes());
        r.value_step = plan.value_room(), r.index_step = plan.index_room(format.sets);
        return r;
    }

    // Groups of filter blocks vary fastest, then strips, then images.
    void strip(int isa, ptrdiff_t index, const ColumnRegions<T> &regions, char *own, T *out) const {
        const ptrdiff_t group = index % groups(), row0 = index / groups() % strips() * strip_rows,
                        n = index / groups() / strips();
        const ptrdiff_t first = group * group_blocks, k = first * block;
        ColumnTask<T> t;
        t.plan = plan;
        t.values = regions.values + n * C * regions.value_step, t.value_step = regions.value_step;
        t.rows = regions.rows + n * C * plan.columns * plan.words();
        t.start = regions.start + n * C * (plan.columns + 1);
        t.tile = (T *)own;
        t.mask = (uint64_t *)(own + tile_bytes());
        t.tile_rows = tile_rows, t.band_rows = band_rows, t.sweep_rows = sweep_rows;
        t.row0 = row0, t.out_rows = Oh - row0 < strip_rows ? Oh - row0 : strip_rows;
        t.blocks = blocks() - first < group_blocks ? blocks() - first : group_blocks;
        t.band = sweep;
        CpcTask<T> &s = t.sweep;
        s.weight = (const T *)weight + first * sets() * Kh * CPC_SET * Kw * block;
        s.bias = bias ? (const T *)bias + k : nullptr;
        s.tile = (T *)(own + tile_bytes() + mask_bytes());
        s.out = out + n * Oh * Ow * K + k, s.out_pitch = K, s.out_row = Ow * K;
        s.pixel_step = pixel_step, s.row_step = row_step, s.set_step = tile_rows * row_step;
        s.C = C, s.H = H, s.W = W, s.Kh = Kh, s.Kw = Kw, s.Ow = Ow;
        s.Sh = Sh, s.Sw = Sw, s.Ph = Ph, s.Pw = Pw, s.Dh = Dh, s.Dw = Dw;
        s.filters = t.blocks * block < K - k ? t.blocks * block : K - k;
        column_strip(isa, (int)vectors, &t);
    }
};

}  // namespace jsc
