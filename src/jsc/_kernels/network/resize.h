// Nearest and bilinear resizing, with torch's own rules for where an output pixel lies in the input.
//
//   nearest    in[min(floor(y s), H - 1), ..],  s = 1 / scale where a scale is given, else H / Oh; y for the
//              same size and floor(y / 2) for twice the size, whatever the scale
//   bilinear   between the four pixels around  y (H - 1) / (Oh - 1)  with aligned corners, else
//              max(s (y + 1/2) - 1/2, 0); y for the same size
//
// All in float32, as torch has it; maps are both float32 or both bfloat16. A task makes the columns' places
// once, in the thread's scratch.
#pragma once
#include "network/channels.h"

namespace jsc::network {

struct ResizeFields {
    Map x, out;
    int64_t bilinear, align_corners;
    double scale_h, scale_w;  // as given to torch, 0 for none
};

struct ResizeSource {
    int64_t first, second;
    float weight;  // of the second
};

// T: the numbers of both maps.
template <class T>
struct ResizeKernel {
    using Source = ResizeSource;
    JSC_INLINE Source source(const ResizeFields &f, int64_t at, int64_t in, int64_t out, double scale) {
        if (in == out) return {at, at, 0.f};
        const float step = scale > 0 ? (float)(1. / scale) : (float)in / (float)out;
        if (!f.bilinear) {
            const int64_t y = out == 2 * in ? at / 2 : std::min((int64_t)((float)at * step), in - 1);
            return {y, y, 0.f};
        }
        float y;
        if (f.align_corners) y = out > 1 ? (float)(in - 1) / (float)(out - 1) * (float)at : 0.f;
        else y = std::max(step * ((float)at + .5f) - .5f, 0.f);
        const int64_t first = std::min((int64_t)y, in - 1);
        return {first, std::min(first + 1, in - 1), std::min(std::max(y - (float)first, 0.f), 1.f)};
    }
    template <class I, bool bilinear>
    JSC_INLINE void row(const ResizeFields &f, const T *top, const T *bottom, T *out, Source h,
                        const Source *places) {
        for (int64_t x = 0; x < f.out.W; x++, out += f.out.pixel) {
            const Source w = places[x];
            const T *a = top + w.first * f.x.pixel, *b = top + w.second * f.x.pixel;
            const T *c = bottom + w.first * f.x.pixel, *d = bottom + w.second * f.x.pixel;
            each_channel<I, 1>(0, f.out.C, [&](auto group, int64_t k) JSC_BODY {
                using F = typename decltype(group)::Vector;
                if constexpr (bilinear) {
                    const F above =
                        (1.f - w.weight) * load_numbers<F>(a + k) + w.weight * load_numbers<F>(b + k);
                    const F below =
                        (1.f - w.weight) * load_numbers<F>(c + k) + w.weight * load_numbers<F>(d + k);
                    store_numbers(out + k, (1.f - h.weight) * above + h.weight * below);
                } else {
                    store_numbers(out + k, load_numbers<F>(a + k));
                }
            });
        }
    }
    template <class I>
    JSC_INLINE void run(const ResizeFields *fields, int64_t n, int64_t first, int64_t rows,
                        const Call *call) {
        const ResizeFields &f = *fields;
        Source *places = (Source *)call->scratch;
        for (int64_t x = 0; x < f.out.W; x++) places[x] = source(f, x, f.x.W, f.out.W, f.scale_w);
        for (int64_t y = first; y < first + rows; y++) {
            const Source h = source(f, y, f.x.H, f.out.H, f.scale_h);
            const T *top = at<T>(f.x, *call, n, h.first), *bottom = at<T>(f.x, *call, n, h.second);
            T *out = at<T>(f.out, *call, n, y);
            if (f.bilinear) row<I, true>(f, top, bottom, out, h, places);
            else row<I, false>(f, top, bottom, out, h, places);
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
    int64_t scratch_bytes() const override { return f.out.W * (int64_t)sizeof(ResizeSource); }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t bands = ceil_div(f.out.H, rows), y = task % bands * rows;
        const int64_t n = task / bands, count = std::min(rows, f.out.H - y);
        dispatch_maps<ResizeKernel>(isa, f.out, &f, n, y, count, &call);
    }
};

}  // namespace jsc::network
