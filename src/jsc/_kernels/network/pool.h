// Pooling over windows of pixels.
//
//   max       out = max over the window's pixels inside the map, -inf of none; a NaN among them is the result
//   average   out = sum over them / divisor, divisor = the number of them, or of pixels in the window that
//             lie inside the padded map (`count_padding`), or a number given; 0 of none
//
// Channels are the lanes; four vectors of channels go through a window together. Which taps of a window lie
// inside the map is settled once for each row and column of windows, so the taps themselves have no checks;
// whole windows of 3 x 3 and 2 x 2 are unrolled. The order of additions is row by row, from zero.
//
// Maps are both float32, or both bfloat16 and followed by bounds at most.
//
// `a > b ? a : b` is the instruction max, which forgets a NaN in a: one is kept beside it.
#pragma once
#include "network/channels.h"

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
    inline __attribute__((always_inline)) int64_t taps() const { return end > first ? end - first : 0; }
};

// Sums or maxima of V vectors: tap(pointer) for each pixel, then the result.
template <class G, bool average>
struct Pooled {
    using F = typename G::Vector;
    static constexpr int V = G::vectors, L = G::lanes;
    F sum[V], bad[V];  // `bad`: a NaN, or 0
    inline __attribute__((always_inline)) void start() {
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sum[v] = average ? F{} : F{} - __builtin_inff(), bad[v] = F{};
    }
    template <class X>
    inline __attribute__((always_inline)) void tap(const X *x) {
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            const F number = load_numbers<F>(x + v * L);
            if (average) sum[v] += number;
            else {
                bad[v] = number == number ? bad[v] : number;
                sum[v] = number > sum[v] ? number : sum[v];
            }
        }
    }
    inline __attribute__((always_inline)) F result(int v, float divisor) const {
        if (average) return sum[v] / divisor;
        return bad[v] == bad[v] ? sum[v] : bad[v];
    }
};

// T: the numbers of both maps.
template <class T>
struct PoolKernel {
    template <class G, bool average, int K>
    JSC_INLINE void channels(const PoolFields &f, const T *x, T *out, int64_t taps_h, int64_t taps_w,
                             float divisor, Bounds bounds) {
        using F = typename G::Vector;
        const int64_t row = f.Dh * f.x.row, pixel = f.Dw * f.x.pixel;
        Pooled<G, average> pooled;
        pooled.start();
        if constexpr (K > 0) {
#pragma GCC unroll 3
            for (int u = 0; u < K; u++, x += row)
#pragma GCC unroll 3
                for (int s = 0; s < K; s++) pooled.tap(x + s * pixel);
        } else {
            for (int64_t u = 0; u < taps_h; u++, x += row)
                for (int64_t s = 0; s < taps_w; s++) pooled.tap(x + s * pixel);
        }
#pragma GCC unroll 4
        for (int v = 0; v < G::vectors; v++)
            store_numbers(out + v * G::lanes, Bounds::apply<F>(pooled.result(v, divisor), bounds));
    }
    template <class I, bool average, int K>
    JSC_INLINE void pixel(const PoolFields &f, const T *from, T *to, int64_t taps_h, int64_t taps_w,
                          float divisor, Bounds bounds) {
        each_channel<I, 4>(0, f.x.C, [&](auto group, int64_t c) JSC_BODY {
            channels<decltype(group), average, K>(f, from + c, to + c, taps_h, taps_w, divisor, bounds);
        });
        if constexpr (sizeof(T) == 4) activate_pixel<I>(to, f.x.C, f.act);
    }
    template <class I, bool average>
    JSC_INLINE void row(const PoolFields &f, const Call &call, int64_t n, int64_t y) {
        const Bounds bounds = Bounds::of(f.act);
        const int64_t iy = y * f.Sh - f.Ph;
        const Window h = Window::of(iy, f.Kh, f.Dh, f.x.H);
        const int64_t padded_h = std::min(f.Kh, f.x.H + f.Ph - iy);
        const T *x_row = at<T>(f.x, call, n) + (iy + h.first * f.Dh) * f.x.row;
        T *to = at<T>(f.out, call, n, y);
        // Windows inner, ..., inner_end - 1 have all their columns inside the map.
        const int64_t inner = ceil_div(f.Pw, f.Sw), room = f.x.W + f.Pw - (f.Kw - 1) * f.Dw;
        const int64_t inner_end = room > 0 ? std::min(f.out.W, ceil_div(room, f.Sw)) : 0;
        const int K = h.taps() == 3 && f.Kw == 3 ? 3 : h.taps() == 2 && f.Kw == 2 ? 2 : 0;
        int64_t ix = -f.Pw;
        for (int64_t x = 0; x < f.out.W; x++, ix += f.Sw, to += f.out.pixel) {
            const bool inside = x >= inner && x < inner_end;
            const Window w = inside ? Window{0, f.Kw} : Window::of(ix, f.Kw, f.Dw, f.x.W);
            const int64_t padded = padded_h * std::min(f.Kw, f.x.W + f.Pw - ix);
            const int64_t count = f.count_padding ? padded : h.taps() * w.taps();
            const float divisor = (float)(f.divisor ? f.divisor : std::max<int64_t>(1, count));
            const T *from = x_row + (ix + w.first * f.Dw) * f.x.pixel;
            if (inside && K == 3) pixel<I, average, 3>(f, from, to, 3, 3, divisor, bounds);
            else if (inside && K == 2) pixel<I, average, 2>(f, from, to, 2, 2, divisor, bounds);
            else pixel<I, average, 0>(f, from, to, h.taps(), w.taps(), divisor, bounds);
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
        const int64_t n = task / bands, count = std::min(rows, f.out.H - y);
        dispatch_maps<PoolKernel>(isa, f.out, &f, n, y, count, &call);
    }
};

}  // namespace jsc::network
