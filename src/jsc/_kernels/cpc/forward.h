// A whole CPC convolution (sweep.h) as rounds of tasks, which any team of threads may share out.
//
//   rounds   masks of the input, where nobody has them yet; bands of output rows for blocks of filters; masks
//            of the output, where its store cannot write them (store.h)
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
    // From a pixel to the next; rows and images follow each other.
    ptrdiff_t x_pitch, out_pitch, residual_pitch;
    ptrdiff_t vectors, block;  // vectors and filters to a block of weights
    size_t weight, bias;  // (K blocks, sets, Kh, 64, Kw, block); (K)
    size_t mean, variance, norm_weight, norm_bias;  // (K): an evaluating batch-norm
    double eps;
    int relu, out_masks;  // whether there are
};

// The addresses of a call. `masks` is null where they are to be found.
template <class T>
struct CpcCall {
    const T *x, *residual;
    const uint64_t *masks;  // (N, sets, H, W)
    T *out;
    uint64_t *out_masks;  // (N, ceil(K / 64), Oh, Ow)
    char *scratch;  // aligned to 64
};

template <class T>
struct CpcConvolution : CpcFields {
    ptrdiff_t band_rows;  // output rows of a task
    bool encodes;  // whether the masks of the input are to be found
    ptrdiff_t threads;

    CpcConvolution(const CpcFields &fields, ptrdiff_t band_rows, bool encodes, ptrdiff_t threads)
        : CpcFields(fields), band_rows(band_rows), encodes(encodes), threads(threads) {}

    ptrdiff_t sets() const { return (C + CPC_SET - 1) / CPC_SET; }
    ptrdiff_t out_sets() const { return (K + CPC_SET - 1) / CPC_SET; }
    ptrdiff_t blocks() const { return (K + block - 1) / block; }
    ptrdiff_t bands() const { return (Oh + band_rows - 1) / band_rows; }
    ptrdiff_t mask_bytes() const { return encodes ? (N * sets() * H * W * 8 + 63) / 64 * 64 : 0; }
    ptrdiff_t row_sums() const { return cpc_tile_columns(Kw, Sw, Dw, Ow) * block; }  // to a row of a tile
    ptrdiff_t scratch_bytes() const {
        return mask_bytes() + threads * band_rows * row_sums() * (ptrdiff_t)sizeof(T);
    }

    enum Round { ENCODE, BANDS, OUT_MASKS };
    Round kind(ptrdiff_t round) const {
        return encodes && round == 0 ? ENCODE : round == (ptrdiff_t)encodes ? BANDS : OUT_MASKS;
    }
    ptrdiff_t rounds() const { return 1 + encodes + (out_masks && !cpc_writes_masks(block)); }
    ptrdiff_t tasks(ptrdiff_t round) const {
        switch (kind(round)) {
        case ENCODE: return shares(N * H);
        case BANDS: return Ow > 0 ? N * bands() * blocks() : 0;
        default: return shares(N * Oh);
        }
    }
    void run(int isa, ptrdiff_t round, ptrdiff_t index, int thread, const CpcCall<T> &call) const {
        switch (kind(round)) {
        case ENCODE: return find_masks(isa, index, N * H, H, W, C, x_pitch, call.x, (uint64_t *)call.scratch);
        case BANDS: return band(isa, index, thread, call);
        default: return find_masks(isa, index, N * Oh, Oh, Ow, K, out_pitch, call.out, call.out_masks);
        }
    }

  private:
    // Rows are handed out by some shares a thread: a row alone is soon done.
    ptrdiff_t shares(ptrdiff_t rows) const {
        const ptrdiff_t wanted = threads == 1 ? 1 : 4 * threads;
        return rows < wanted ? rows : wanted;
    }
    // Share `index` of the rows of all images.
    void find_masks(int isa, ptrdiff_t index, ptrdiff_t rows, ptrdiff_t height, ptrdiff_t width,
                    ptrdiff_t channels, ptrdiff_t pitch, const T *x, uint64_t *mask) const {
        const ptrdiff_t plane = height * width, image = (channels + CPC_SET - 1) / CPC_SET * plane;
        const ptrdiff_t end = (index + 1) * rows / shares(rows);
        for (ptrdiff_t row = index * rows / shares(rows); row < end; row++) {
            const ptrdiff_t n = row / height;
            cpc_masks(isa, x + row * width * pitch, width, channels, pitch, plane,
                      mask + n * image + (row - n * height) * width);
        }
    }
    // Filter blocks vary fastest: neighbouring tasks read the same rows of the input.
    void band(int isa, ptrdiff_t index, int thread, const CpcCall<T> &call) const {
        const ptrdiff_t b = index % blocks(), row0 = index / blocks() % bands() * band_rows,
                        n = index / blocks() / bands();
        const ptrdiff_t k = b * block, pixel = (n * Oh + row0) * Ow;
        auto of_block = [k](size_t address) { return address ? (const T *)address + k : nullptr; };
        CpcTask<T> t;
        t.x = call.x + n * H * W * x_pitch;
        t.mask = (call.masks ? call.masks : (const uint64_t *)call.scratch) + n * sets() * H * W;
        t.weight = (const T *)weight + b * sets() * Kh * CPC_SET * Kw * block;
        t.bias = of_block(bias);
        t.tile = (T *)(call.scratch + mask_bytes()) + thread * band_rows * row_sums();
        t.out = call.out + pixel * out_pitch + k;
        t.pixel_step = x_pitch, t.row_step = W * x_pitch, t.set_step = CPC_SET;
        t.out_pitch = out_pitch, t.out_row = Ow * out_pitch;
        t.C = C, t.H = H, t.W = W, t.Kh = Kh, t.Kw = Kw, t.Ow = Ow;
        t.Sh = Sh, t.Sw = Sw, t.Ph = Ph, t.Pw = Pw, t.Dh = Dh, t.Dw = Dw;
        t.row0 = row0, t.rows = Oh - row0 < band_rows ? Oh - row0 : band_rows;
        t.filters = K - k < block ? K - k : block;
        t.norm = {of_block(mean), of_block(variance), of_block(norm_weight), of_block(norm_bias), (T)eps};
        t.residual = call.residual ? call.residual + pixel * residual_pitch + k : nullptr;
        t.residual_pitch = residual_pitch, t.residual_row = Ow * residual_pitch, t.relu = relu != 0;
        if (out_masks && cpc_writes_masks(block)) {
            t.out_plane = Oh * Ow;
            t.out_mask = call.out_masks + (n * out_sets() + k / CPC_SET) * t.out_plane + row0 * Ow;
            t.first_bit = (int)(k % CPC_SET), t.last = b == blocks() - 1;
        }
        cpc_band(isa, (int)vectors, &t);
    }
};

}  // namespace jsc
