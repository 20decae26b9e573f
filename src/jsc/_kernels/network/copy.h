// A map copied to another place and layout, with a border of one value around it.
//
//   out[n, y + top, x + left, c] = in[n, y, x, order[c]],   fill elsewhere
//
// The one instruction that takes maps with any step between channels: planar images (NCHW) become
// channels-last and back, L x L numbers at a time by a transpose in registers. `order` (int32, or 0 for
// none) says which input channel an output channel is; -1 is fill.
#pragma once
#include "network/instruction.h"

namespace jsc::network {

struct CopyFields {
    Map x, out;
    int64_t top, left;
    double fill;
    uint64_t order;
};

struct CopyKernel {
    template <class I>
    JSC_INLINE void row(const CopyFields &f, const float *x, float *out) {
        using F = Vec<I, float>;
        constexpr int L = lanes<I, float>;
        const int64_t W = f.x.W, C = f.out.C, xp = f.x.pixel, xc = f.x.channel, op = f.out.pixel,
                      oc = f.out.channel;
        if (f.order) {
            const int32_t *order = constant<int32_t>(f.order);
            for (int64_t w = 0; w < W; w++)
                for (int64_t c = 0; c < C; c++)
                    out[w * op + c * oc] = order[c] < 0 ? (float)f.fill : x[w * xp + order[c] * xc];
        } else if (xc == 1 && oc == 1) {
            for (int64_t w = 0; w < W; w++) {
                int64_t c = 0;
                for (; c + L <= C; c += L) store(out + w * op + c, load<F>(x + w * xp + c));
                for (; c < C; c++) out[w * op + c] = x[w * xp + c];
            }
        } else if (C >= L && W >= L && ((xp == 1 && oc == 1) || (xc == 1 && op == 1))) {
            // L vectors along the axis that is dense in x, turned, and stored along the one that is dense
            // in out.
            const bool pixels = xp == 1;
            const int64_t A = pixels ? W : C, B = pixels ? C : W, from = pixels ? xc : xp,
                          to = pixels ? op : oc;
            for (int64_t a = 0; a < A; a += L)
                for (int64_t b = 0; b < B; b += L) {
                    // The last blocks overlap those before them: they write the same numbers again.
                    const int64_t a0 = std::min(a, A - L), b0 = std::min(b, B - L);
                    F block[L];
#pragma GCC unroll 16
                    for (int i = 0; i < L; i++) block[i] = load<F>(x + (b0 + i) * from + a0);
                    transpose<I, float>(block);
#pragma GCC unroll 16
                    for (int i = 0; i < L; i++) store(out + (a0 + i) * to + b0, block[i]);
                }
        } else if (C == 3) {
            for (int64_t w = 0; w < W; w++)
                for (int c = 0; c < 3; c++) out[w * op + c * oc] = x[w * xp + c * xc];
        } else {
            for (int64_t c = 0; c < C; c++)
                for (int64_t w = 0; w < W; w++) out[w * op + c * oc] = x[w * xp + c * xc];
        }
    }
    JSC_INLINE void fill(const CopyFields &f, float *out, int64_t first, int64_t end) {
        for (int64_t w = first; w < end; w++)
            for (int64_t c = 0; c < f.out.C; c++) out[w * f.out.pixel + c * f.out.channel] = (float)f.fill;
    }
    template <class I>
    JSC_INLINE void run(const CopyFields *fields, int64_t n, int64_t first, int64_t rows, const Call *call) {
        const CopyFields &f = *fields;
        for (int64_t y = first; y < first + rows; y++) {
            float *out = at(f.out, *call, n, y);
            const int64_t from = y - f.top;
            if (from < 0 || from >= f.x.H) {
                fill(f, out, 0, f.out.W);
                continue;
            }
            fill(f, out, 0, f.left);
            row<I>(f, at(f.x, *call, n, from), out + f.left * f.out.pixel);
            fill(f, out, f.left + f.x.W, f.out.W);
        }
    }
};

struct Copy final : Instruction {
    CopyFields f;
    int64_t rows;
    explicit Copy(const CopyFields &fields) : f(fields) { rows = rows_to_a_band(f.out.H, f.out.W * f.out.C); }
    int64_t tasks(int64_t) const override { return f.out.N * ceil_div(f.out.H, rows); }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t bands = ceil_div(f.out.H, rows), y = task % bands * rows;
        dispatch<CopyKernel>(isa, &f, task / bands, y, std::min(rows, f.out.H - y), &call);
    }
};

}  // namespace jsc::network
