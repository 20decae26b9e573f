// Pooling over windows of pixels.
//
//   max       out = max over the window's pixels inside the map; a NaN among them is the result, as in torch
//   average   out = sum over them / divisor: the number of them, or of pixels in the window that lie
//             inside the padded map (`count_padding`), or a number given
//
// Channels are the lanes; four vectors of channels go through a window together. The order of additions is
// row by row, from zero.
#pragma once
#include "network/activation.h"

namespace jsc::network {

struct PoolFields {
    Map x, out;
    int64_t Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw;
    int64_t average;  // 0: maximum
    int64_t count_padding;  // 1: pixels of the padding count
    int64_t divisor;  // instead of a count; 0 for none
    Activation act;
};

// The window of an output inside the map: taps first, ... end - 1.
struct Window {
    int64_t first, end;
    JSC_INLINE Window of(int64_t origin, int64_t K, int64_t D, int64_t size) {
        Window w;
        w.first = origin >= 0 ? 0 : ceil_div(-origin, D);
        w.end = origin >= size ? 0 : std::min(K, ceil_div(size - origin, D));
        return w;
    }
};

struct PoolKernel {
    template <class F, int V, bool average>
    JSC_INLINE void channels(const PoolFields &f, const float *x, float *out, Window h, Window w,
                             float factor) {
        constexpr int L = sizeof(F) / 4;
        F sum[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sum[v] = average ? F{} : F{} - __builtin_inff();
        for (int64_t u = h.first; u < h.end; u++)
            for (int64_t s = w.first; s < w.end; s++) {
                const float *from = x + u * f.Dh * f.x.row + s * f.Dw * f.x.pixel;
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) {
                    const F number = load<F>(from + v * L);
                    if (average) sum[v] += number;
                    else sum[v] = (number > sum[v]) | (number != number) ? number : sum[v];
                }
            }
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            store(out + v * L, activate<F>(average ? sum[v] * factor : sum[v], f.act));
    }

    template <class I, bool average>
    JSC_INLINE void row(const PoolFields &f, const Call &call, int64_t n, int64_t y) {
        using F = Vec<I, float>;
        typedef float One __attribute__((vector_size(4)));
        constexpr int L = lanes<I, float>;
        const int64_t iy = y * f.Sh - f.Ph;
        const Window h = Window::of(iy, f.Kh, f.Dh, f.x.H);
        for (int64_t x = 0; x < f.out.W; x++) {
            const int64_t ix = x * f.Sw - f.Pw;
            const Window w = Window::of(ix, f.Kw, f.Dw, f.x.W);
            int64_t count = std::max<int64_t>(0, h.end - h.first) * std::max<int64_t>(0, w.end - w.first);
            if (f.count_padding)
                count = (std::min(iy + f.Kh, f.x.H + f.Ph) - iy) * (std::min(ix + f.Kw, f.x.W + f.Pw) - ix);
            const float factor = average ? 1.f / (float)(f.divisor ? f.divisor : count) : 1.f;
            const float *from = at(f.x, call, n) + iy * f.x.row + ix * f.x.pixel;
            float *to = at(f.out, call, n, y, x);
            int64_t c = 0;
            for (; c + 4 * L <= f.x.C; c += 4 * L) channels<F, 4, average>(f, from + c, to + c, h, w, factor);
            for (; c + L <= f.x.C; c += L) channels<F, 1, average>(f, from + c, to + c, h, w, factor);
            for (; c < f.x.C; c++) channels<One, 1, average>(f, from + c, to + c, h, w, factor);
        }
    }
    template <class I>
    JSC_INLINE void run(const PoolFields *f, int64_t n, int64_t first, int64_t rows, const Call *call) {
        for (int64_t y = first; y < first + rows; y++)
            if (f->average) row<I, true>(*f, *call, n, y);
            else row<I, false>(*f, *call, n, y);
    }
};

struct Pool final : Instruction {
    PoolFields f;
    int64_t rows;
    explicit Pool(const PoolFields &fields) : f(fields) {
        rows = rows_to_a_band(f.out.H, f.out.W * f.out.C * f.Kh * f.Kw / 4 + 1);
    }
    int64_t tasks(int64_t) const override { return f.out.N * ceil_div(f.out.H, rows); }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t bands = ceil_div(f.out.H, rows), y = task % bands * rows;
        dispatch<PoolKernel>(isa, &f, task / bands, y, std::min(rows, f.out.H - y), &call);
    }
};

// Adaptive pooling: output (y, x) has the pixels floor(y H / Oh) to ceil((y + 1) H / Oh) - 1, columns
// alike; to one pixel it is the global mean. Sums of rows first, then of the rows' sums: shorter chains
// than one over all.
struct AdaptivePoolFields {
    Map x, out;
    int64_t average;
    Activation act;
};

struct AdaptivePoolKernel {
    template <class F>
    JSC_INLINE void channels(const AdaptivePoolFields &f, const float *x, float *out, int64_t h, int64_t w,
                             float factor) {
        F total = f.average ? F{} : F{} - __builtin_inff();
        for (int64_t u = 0; u < h; u++) {
            F sum = f.average ? F{} : F{} - __builtin_inff();
            for (int64_t s = 0; s < w; s++) {
                const F number = load<F>(x + u * f.x.row + s * f.x.pixel);
                if (f.average) sum += number;
                else sum = (number > sum) | (number != number) ? number : sum;
            }
            if (f.average) total += sum;
            else total = (sum > total) | (sum != sum) ? sum : total;
        }
        store(out, activate<F>(f.average ? total * factor : total, f.act));
    }
    template <class I>
    JSC_INLINE void run(const AdaptivePoolFields *fields, int64_t n, int64_t y, int64_t x, int64_t c,
                        int64_t c_end, const Call *call) {
        using F = Vec<I, float>;
        typedef float One __attribute__((vector_size(4)));
        constexpr int L = lanes<I, float>;
        const AdaptivePoolFields &f = *fields;
        const int64_t y0 = y * f.x.H / f.out.H, y1 = ceil_div((y + 1) * f.x.H, f.out.H);
        const int64_t x0 = x * f.x.W / f.out.W, x1 = ceil_div((x + 1) * f.x.W, f.out.W);
        const float factor = 1.f / (float)((y1 - y0) * (x1 - x0));
        const float *from = at(f.x, *call, n, y0, x0);
        float *to = at(f.out, *call, n, y, x);
        for (; c + L <= c_end; c += L) channels<F>(f, from + c, to + c, y1 - y0, x1 - x0, factor);
        for (; c < c_end; c++) channels<One>(f, from + c, to + c, y1 - y0, x1 - x0, factor);
    }
};

struct AdaptivePool final : Instruction {
    AdaptivePoolFields f;
    int64_t step, parts;  // channels of a task
    explicit AdaptivePool(const AdaptivePoolFields &fields) : f(fields) {
        const int64_t pixels = std::max<int64_t>(1, f.x.H * f.x.W / (f.out.H * f.out.W));
        step = std::max<int64_t>(64, band_floats / pixels / 64 * 64);
        parts = ceil_div(f.x.C, step);
    }
    int64_t tasks(int64_t) const override { return f.out.N * f.out.H * f.out.W * parts; }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t c = task % parts * step, pixel = task / parts, n = pixel / (f.out.H * f.out.W),
                      p = pixel % (f.out.H * f.out.W);
        dispatch<AdaptivePoolKernel>(isa, &f, n, p / f.out.W, p % f.out.W, c, std::min(f.x.C, c + step),
                                     &call);
    }
};

}  // namespace jsc::network
