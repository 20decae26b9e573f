// The CPC convolution (cpc/sweep.h) as an instruction: only the channels that are not zero are multiplied.
//
//   out[n, y, x, k] = act(shift[k] + sum(u, s, c) w[k, c, u, s] in[n, S y + D u - P, S x + D s - P, c]
//                         + residual[n, y, x, k])
//
// Two rounds: masks of the input, by rows, into memory that all threads share; then bands of output rows
// for blocks of filters, blocks varying fastest, so that neighbouring tasks read the same rows. Masks take at
// most 1.5 % of a trained network's time (AMD EPYC), so whoever writes a map leaves them to this.
//
// Weights: (K blocks, sets of 64 channels, Kh, 64, Kw, block). The sweep is compiled once, in the module
// cpc.forward, and reached through a pointer. Numerics: those of cpc/sweep.h. A weight that is not finite
// would be passed over where its input is zero, so such weights take another method (emit.py).
#pragma once
#include <limits>

#include "cpc/masks.h"
#include "network/activation.h"

namespace jsc::network {

struct SparseFields {
    Map x, out;
    int64_t masks;  // where in the arena, in floats: (N, sets, H, W) of 64 bits
    int64_t Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw;
    int64_t vectors, block;  // vectors and filters to a block of weights
    int64_t columns;  // of a row of a task's tile of sums
    int64_t band_rows;  // output rows of a task
    uint64_t weight;
    Epilogue epilogue;
};

// An activation other than ReLU, over a band whose sums are stored.
struct ActivateBand {
    template <class I>
    JSC_INLINE void run(float *out, int64_t rows, int64_t row, int64_t W, int64_t pixel, int64_t filters,
                        const Activation *act) {
        using F = Vec<I, float>;
        constexpr int L = lanes<I, float>;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t x = 0; x < W; x++) {
                float *to = out + r * row + x * pixel;
                const int64_t whole = filters / L * L;
                activate_all<F>(to, whole, *act);
                const int n = (int)(filters - whole);
                if (n) store_partial(to + whole, activate<F>(load_partial<F>(to + whole, n), *act), n);
            }
    }
};

class Sparse final : public Instruction {
  public:
    Sparse(const SparseFields &fields, CpcBandFunction<float> band) : f(fields), band(band) {
        const Activation &act = f.epilogue.act;
        relu = act.kind == act_clamp && act.a == 0 && act.b == std::numeric_limits<double>::infinity();
    }
    int64_t rounds() const override { return 2; }
    int64_t tasks(int64_t round) const override {
        return round == 0 ? f.x.N * ceil_div(f.x.H, mask_rows())
                          : f.out.N * ceil_div(f.out.H, f.band_rows) * blocks();
    }
    int64_t scratch_bytes() const override { return f.band_rows * f.columns * f.block * 4; }
    void run(int isa, int64_t round, int64_t task, const Call &call) const override {
        if (round == 0) find_masks(isa, task, call);
        else convolve(isa, task, call);
    }

  private:
    SparseFields f;
    CpcBandFunction<float> band;
    bool relu;

    int64_t sets() const { return ceil_div(f.x.C, CPC_SET); }
    int64_t blocks() const { return ceil_div(f.out.C, f.block); }
    int64_t mask_rows() const { return rows_to_a_band(f.x.H, f.x.W * f.x.C); }
    uint64_t *masks(const Call &call, int64_t n) const {
        return (uint64_t *)((float *)call.regions[0] + f.masks) + n * sets() * f.x.H * f.x.W;
    }
    void find_masks(int isa, int64_t task, const Call &call) const {
        const int64_t bands = ceil_div(f.x.H, mask_rows()), n = task / bands;
        const int64_t first = (task - n * bands) * mask_rows(), end = std::min(f.x.H, first + mask_rows());
        for (int64_t h = first; h < end; h++)
            cpc_masks<float>(isa, at(f.x, call, n, h), f.x.W, f.x.C, f.x.pixel, f.x.H * f.x.W,
                             masks(call, n) + h * f.x.W);
    }
    void convolve(int isa, int64_t task, const Call &call) const {
        const int64_t bands = ceil_div(f.out.H, f.band_rows), b = task % blocks(), k = b * f.block;
        const int64_t n = task / blocks() / bands, row0 = task / blocks() % bands * f.band_rows;
        const Epilogue &e = f.epilogue;
        CpcTask<float> t;
        t.x = at(f.x, call, n);
        t.mask = masks(call, n);
        t.weight = constant(f.weight) + b * sets() * f.Kh * CPC_SET * f.Kw * f.block;
        t.bias = e.shift ? constant(e.shift) + k : nullptr;
        t.tile = (float *)call.scratch;
        t.out = at(f.out, call, n, row0) + k;
        t.pixel_step = f.x.pixel, t.row_step = f.x.row, t.set_step = CPC_SET;
        t.out_pitch = f.out.pixel, t.out_row = f.out.row;
        t.C = f.x.C, t.H = f.x.H, t.W = f.x.W, t.Kh = f.Kh, t.Kw = f.Kw, t.Ow = f.out.W;
        t.Sh = f.Sh, t.Sw = f.Sw, t.Ph = f.Ph, t.Pw = f.Pw, t.Dh = f.Dh, t.Dw = f.Dw;
        t.row0 = row0, t.rows = std::min(f.band_rows, f.out.H - row0);
        t.filters = std::min(f.block, f.out.C - k);
        if (e.has_residual) {
            t.residual = at(e.residual, call, n, row0) + k;
            t.residual_pitch = e.residual.pixel, t.residual_row = e.residual.row;
        }
        t.relu = relu;
        band(isa, (int)f.vectors, &t);
        if (!relu && e.act.kind != act_none)
            dispatch<ActivateBand>(isa, t.out, t.rows, f.out.row, f.out.W, f.out.pixel, t.filters, &e.act);
    }
};

}  // namespace jsc::network
