// Adaptive pooling: output (y, x) is the mean, or the largest, of the pixels
//
//   floor(y H / Oh), ..., ceil((y + 1) H / Oh) - 1   and columns alike
//
// With one output pixel it is the global mean. Channels are the lanes, four vectors of them at a time; the
// channels of a pixel are cut into tasks, so that one map of few pixels still has work for all threads. Sums
// of rows first, then the sum of those: an error that grows with H + W instead of H W. NaN as in pool.h.
#pragma once
#include "network/pool.h"

namespace jsc::network {

struct AdaptivePoolFields {
    Map x, out;
    int64_t average;
    Activation act;
};

// X, T: the numbers of the input and of the output.
template <class X, class T>
struct AdaptivePoolKernel {
    template <class G, bool average>
    JSC_INLINE void channels(const AdaptivePoolFields &f, const X *x, T *out, int64_t h, int64_t w,
                             Bounds bounds) {
        using F = typename G::Vector;
        Pooled<G, average> pooled;
        pooled.start();
        F total[G::vectors] = {};
        for (int64_t u = 0; u < h; u++) {
            const X *from = x + u * f.x.row;
            if (average) pooled.start();
            for (int64_t s = 0; s < w; s++, from += f.x.pixel) pooled.tap(from);
#pragma GCC unroll 4
            for (int v = 0; v < G::vectors; v++) total[v] += pooled.sum[v];
        }
        const float count = (float)(h * w);
#pragma GCC unroll 4
        for (int v = 0; v < G::vectors; v++) {
            const F y = average ? total[v] / count : pooled.result(v, 1.f);
            store_numbers(out + v * G::lanes, Bounds::apply<F>(y, bounds));
        }
    }
    template <class I, bool average>
    JSC_INLINE void pixel(const AdaptivePoolFields &f, const Call &call, int64_t n, int64_t y, int64_t x,
                          int64_t c, int64_t c_end) {
        const int64_t y0 = y * f.x.H / f.out.H, y1 = ceil_div((y + 1) * f.x.H, f.out.H);
        const int64_t x0 = x * f.x.W / f.out.W, x1 = ceil_div((x + 1) * f.x.W, f.out.W);
        const Bounds bounds = Bounds::of(f.act);
        const X *from = at<X>(f.x, call, n, y0, x0);
        T *to = at<T>(f.out, call, n, y, x);
        each_channel<I, 4>(c, c_end, [&](auto group, int64_t k) JSC_BODY {
            channels<decltype(group), average>(f, from + k, to + k, y1 - y0, x1 - x0, bounds);
        });
        if constexpr (sizeof(T) == 4) activate_pixel<I>(to + c, c_end - c, f.act);
    }
    template <class I>
    JSC_INLINE void run(const AdaptivePoolFields *f, int64_t n, int64_t y, int64_t x, int64_t c,
                        int64_t c_end, const Call *call) {
        if (f->average) pixel<I, true>(*f, *call, n, y, x, c, c_end);
        else pixel<I, false>(*f, *call, n, y, x, c, c_end);
    }
};

struct AdaptivePool final : Instruction {
    AdaptivePoolFields f;
    int64_t step, parts;  // channels of a task: whole cache lines
    explicit AdaptivePool(const AdaptivePoolFields &fields) : f(fields) {
        const int64_t pixels = std::max<int64_t>(1, f.x.H * f.x.W / (f.out.H * f.out.W));
        step = std::max<int64_t>(16, band_floats / pixels / 16 * 16);
        parts = ceil_div(f.x.C, step);
    }
    int64_t tasks(int64_t) const override { return f.out.N * f.out.H * f.out.W * parts; }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t c = task % parts * step, c_end = std::min(f.x.C, c + step), pixel = task / parts;
        const int64_t pixels = f.out.H * f.out.W, n = pixel / pixels, p = pixel % pixels;
        const int64_t y = p / f.out.W, x = p % f.out.W;
        dispatch_maps<AdaptivePoolKernel>(isa, f.x, f.out, &f, n, y, x, c, c_end, &call);
    }
};

}  // namespace jsc::network
