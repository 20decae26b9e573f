// Nearest and bilinear resizing, with torch's own rules for where an output pixel lies in the input.
//
//   nearest    in[min(floor(y s), H - 1), ..],  s = 1 / scale where a scale is given, else H / Oh
//   bilinear   between the four pixels around  y (H - 1) / (Oh - 1)  with aligned corners, else
//              max(s (y + 1/2) - 1/2, 0); weights in float32
#pragma once
#include <cmath>

#include "network/instruction.h"

namespace jsc::network {

struct ResizeFields {
    Map x, out;
    int64_t bilinear, align_corners;
    double scale_h, scale_w;  // as given to torch, 0 for none
};

struct ResizeKernel {
    struct Source {
        int64_t first, second;
        float weight;  // of the second
    };
    JSC_INLINE Source source(const ResizeFields &f, int64_t at, int64_t in, int64_t out, double scale) {
        if (!f.bilinear) {
            const float step = scale > 0 ? (float)(1. / scale) : (float)in / (float)out;
            const int64_t y = std::min<int64_t>((int64_t)std::floor((float)at * step), in - 1);
            return {y, y, 0.f};
        }
        float y;
        if (f.align_corners) y = out > 1 ? (float)(in - 1) / (float)(out - 1) * (float)at : 0.f;
        else {
            const float step = scale > 0 ? (float)(1. / scale) : (float)in / (float)out;
            y = step * ((float)at + .5f) - .5f;
            y = y < 0.f ? 0.f : y;
        }
        const int64_t first = std::min<int64_t>((int64_t)y, in - 1);
        return {first, std::min<int64_t>(first + 1, in - 1), std::min(std::max(y - (float)first, 0.f), 1.f)};
    }
    template <class F>
    JSC_INLINE F mix(const float *a, const float *b, const float *c, const float *d, Source h, Source w) {
        const F top = (1.f - w.weight) * load<F>(a) + w.weight * load<F>(b);
        const F bottom = (1.f - w.weight) * load<F>(c) + w.weight * load<F>(d);
        return (1.f - h.weight) * top + h.weight * bottom;
    }
    template <class I>
    JSC_INLINE void run(const ResizeFields *fields, int64_t n, int64_t first, int64_t rows,
                        const Call *call) {
        using F = Vec<I, float>;
        typedef float One __attribute__((vector_size(4)));
        constexpr int L = lanes<I, float>;
        const ResizeFields &f = *fields;
        for (int64_t y = first; y < first + rows; y++) {
            const Source h = source(f, y, f.x.H, f.out.H, f.scale_h);
            for (int64_t x = 0; x < f.out.W; x++) {
                const Source w = source(f, x, f.x.W, f.out.W, f.scale_w);
                const float *a = at(f.x, *call, n, h.first, w.first),
                            *b = at(f.x, *call, n, h.first, w.second);
                const float *c = at(f.x, *call, n, h.second, w.first),
                            *d = at(f.x, *call, n, h.second, w.second);
                float *out = at(f.out, *call, n, y, x);
                int64_t k = 0;
                for (; k + L <= f.out.C; k += L)
                    store(out + k, f.bilinear ? mix<F>(a + k, b + k, c + k, d + k, h, w) : load<F>(a + k));
                for (; k < f.out.C; k++)
                    store(out + k,
                          f.bilinear ? mix<One>(a + k, b + k, c + k, d + k, h, w) : load<One>(a + k));
            }
        }
    }
};

struct Resize final : Instruction {
    ResizeFields f;
    int64_t rows;
    explicit Resize(const ResizeFields &fields) : f(fields) {
        rows = rows_to_a_band(f.out.H, 2 * f.out.W * f.out.C);
    }
    int64_t tasks(int64_t) const override { return f.out.N * ceil_div(f.out.H, rows); }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t bands = ceil_div(f.out.H, rows), y = task % bands * rows;
        dispatch<ResizeKernel>(isa, &f, task / bands, y, std::min(rows, f.out.H - y), &call);
    }
};

}  // namespace jsc::network
