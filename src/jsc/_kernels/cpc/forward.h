// A whole CPC convolution (sweep.h) as rounds of tasks, which any team of threads may share out.
//
//   rounds   masks of the input; bands of output rows for blocks of filters
//   scratch  masks of the input, then a tile of partial sums for each thread
//
// The tasks of a round are independent; a round begins when the one before it has ended. Each output element
// and each mask belongs to one task, whatever the number of threads.
#pragma once
#include "cpc/masks.h"
#include "cpc/sweep.h"

namespace jsc {

// What does not change from call to call. Sizes are numbers of elements, addresses are 0 where there is
// nothing.
struct CpcFields {
    ptrdiff_t N, C, H, W, K, Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw, Oh, Ow;
    ptrdiff_t vectors, block;  // vectors and filters to a block of weights
    size_t weight, bias;  // (K blocks, sets, Kh, 64, Kw, block); (K)
};

// The addresses of a call.
template <class T>
struct CpcCall {
    const T *x;  // (N, H, W, C)
    T *out;  // (N, Oh, Ow, K)
    char *scratch;  // aligned to 64
};

template <class T>
struct CpcConvolution : CpcFields {
    ptrdiff_t band_rows;  // output rows of a task
    ptrdiff_t threads;

    CpcConvolution(const CpcFields &fields, ptrdiff_t band_rows, ptrdiff_t threads)
        : CpcFields(fields), band_rows(band_rows), threads(threads) {}

    ptrdiff_t sets() const { return (C + CPC_SET - 1) / CPC_SET; }
    ptrdiff_t blocks() const { return (K + block - 1) / block; }
    ptrdiff_t bands() const { return (Oh + band_rows - 1) / band_rows; }
    ptrdiff_t mask_bytes() const { return (N * sets() * H * W * 8 + 63) / 64 * 64; }
    ptrdiff_t row_sums() const { return cpc_tile_columns(Kw, Sw, Dw, Ow) * block; }  // to a row of a tile
    ptrdiff_t scratch_bytes() const {
        return mask_bytes() + threads * band_rows * row_sums() * (ptrdiff_t)sizeof(T);
    }

    ptrdiff_t rounds() const { return 2; }
    ptrdiff_t tasks(ptrdiff_t round) const {
        return round == 0 ? shares() : Ow > 0 ? N * bands() * blocks() : 0;
    }
    void run(int isa, ptrdiff_t round, ptrdiff_t index, int thread, const CpcCall<T> &call) const {
        if (round == 0) find_masks(isa, index, call);
        else band(isa, index, thread, call);
    }

  private:
    // Rows are handed out by some shares a thread: a row alone is soon done.
    ptrdiff_t shares() const {
        const ptrdiff_t rows = N * H, wanted = threads == 1 ? 1 : 4 * threads;
        return rows < wanted ? rows : wanted;
    }
    // Share `index` of the rows of all images.
    void find_masks(int isa, ptrdiff_t index, const CpcCall<T> &call) const {
        const ptrdiff_t plane = H * W, rows = N * H, end = (index + 1) * rows / shares();
        for (ptrdiff_t row = index * rows / shares(); row < end; row++) {
            const ptrdiff_t n = row / H;
            cpc_masks(isa, call.x + row * W * C, W, C, C, plane,
                      (uint64_t *)call.scratch + n * sets() * plane + (row - n * H) * W);
        }
    }
    // Filter blocks vary fastest: neighbouring tasks read the same rows of the input.
    void band(int isa, ptrdiff_t index, int thread, const CpcCall<T> &call) const {
        const ptrdiff_t b = index % blocks(), row0 = index / blocks() % bands() * band_rows,
                        n = index / blocks() / bands();
        const ptrdiff_t k = b * block, pixel = (n * Oh + row0) * Ow;
        CpcTask<T> t;
        t.x = call.x + n * H * W * C;
        t.mask = (const uint64_t *)call.scratch + n * sets() * H * W;
        t.weight = (const T *)weight + b * sets() * Kh * CPC_SET * Kw * block;
        t.bias = bias ? (const T *)bias + k : nullptr;
        t.tile = (T *)(call.scratch + mask_bytes()) + thread * band_rows * row_sums();
        t.out = call.out + pixel * K + k;
        t.pixel_step = C, t.row_step = W * C, t.set_step = CPC_SET;
        t.out_pitch = K, t.out_row = Ow * K;
        t.C = C, t.H = H, t.W = W, t.Kh = Kh, t.Kw = Kw, t.Ow = Ow;
        t.Sh = Sh, t.Sw = Sw, t.Ph = Ph, t.Pw = Pw, t.Dh = Dh, t.Dw = Dw;
        t.row0 = row0, t.rows = Oh - row0 < band_rows ? Oh - row0 : band_rows;
        t.filters = K - k < block ? K - k : block;
        cpc_band(isa, (int)vectors, &t);
    }
};

}  // namespace jsc
