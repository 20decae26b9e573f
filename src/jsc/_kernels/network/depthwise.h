// Depthwise convolution: each channel has a kernel of its own.
//
//   out[n, y, x, c] = act(sum(u, v) w[u, v, c] in[n, Sh y + Dh u - Ph, Sw x + Dw v - Pw, c]
//                         + shift[c] + residual[n, y, x, c])
//
// Channels are the lanes. Tile: four neighbouring output pixels by one or two vectors of channels. For each
// kernel row its weights lie in registers while the columns of the input go past, and each number is loaded
// once for all the taps and pixels that meet it: 9 loads for 12 multiply-adds of a row of a 3 x 3 kernel,
// where one load for each tap of each pixel took 15. Columns outside the map are passed over. The last tile
// of a row and the last vector of the channels begin earlier, so that they are whole: what two share is
// computed twice. Kernels that are not 3, 5 or 7 wide or have other steps than 1 and 2, and maps of fewer
// pixels or channels, go pixel by pixel.
//
// Weights: for each vector of channels (Kh, Kw, lanes); the last vector are the last channels; fewer
// channels than lanes lie each by itself.
//
// Versions: pixel by pixel, one load for each tap; the epilogue in registers (2 times as fast); tiles that
// load each number once, one load for 1.3 multiply-adds. On one thread of an AMD EPYC with AVX-512 it is at
// .33 to .66 of the rate of large matrix products (benchmarks/results/dense.md).
//
// Order of additions: u, then v, from zero; taps that hang over are left out.
#pragma once
#include "network/activation.h"
#include "network/pool.h"

namespace jsc::network {

struct DepthwiseFields {
    Map x, out;
    int64_t Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw;
    uint64_t weight;
    Epilogue epilogue;
};

// X, T: the numbers of the input; of the output and the residual.
template <class X, class T>
struct DepthwiseTiles {
    // Where a tile reads and writes: its first tap, its first output pixel, and the taps inside the map.
    struct Place {
        const X *x;
        T *out;
        const T *residual;
        Window rows, columns;
    };

    // Four pixels, V vectors from channel c, of a kernel K wide at stride S. `Inside`: no column hangs over.
    template <class F, int K, int S, int V, bool Inside>
    JSC_INLINE void four(const DepthwiseFields &f, const Place &at, int64_t c, const float *weight) {
        constexpr int L = sizeof(F) / 4, P = 4, J = (P - 1) * S + K;
        const int64_t pixel = f.x.pixel, next = f.Kh * K * L;
        F sum[P][V];
#pragma GCC unroll 4
        for (int p = 0; p < P; p++)
#pragma GCC unroll 2
            for (int v = 0; v < V; v++) sum[p][v] = F{};
        for (int64_t u = at.rows.first; u < at.rows.end; u++) {
            F w[K][V];
#pragma GCC unroll 8
            for (int s = 0; s < K; s++)
#pragma GCC unroll 2
                for (int v = 0; v < V; v++) w[s][v] = load<F>(weight + (u * K + s) * L + v * next);
            const X *from = at.x + u * f.Dh * f.x.row + c;
#pragma GCC unroll 16
            for (int j = 0; j < J; j++, from += pixel) {
                keep_in_register(from);  // one pointer that moves, instead of J
                if (!Inside && (j < at.columns.first || j >= at.columns.end)) continue;
#pragma GCC unroll 2
                for (int v = 0; v < V; v++) {
                    F number = load_numbers<F>(from + v * L);
                    keep_in_register(number);
#pragma GCC unroll 8
                    for (int s = 0; s < K; s++)
                        if (j >= s && (j - s) % S == 0 && (j - s) / S < P)
                            sum[(j - s) / S][v] += w[s][v] * number;
                }
            }
        }
        finish_pixels<F, P, V>(f.epilogue, sum, c, (V - 1) * L, at.out + c, f.out.pixel,
                               at.residual ? at.residual + c : nullptr);
    }
    // One pixel of any kernel.
    template <class F, int V>
    JSC_INLINE void one(const DepthwiseFields &f, const Place &at, int64_t c, const float *weight) {
        constexpr int L = sizeof(F) / 4;
        F sum[1][V];
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) sum[0][v] = F{};
        for (int64_t u = at.rows.first; u < at.rows.end; u++)
            for (int64_t s = at.columns.first; s < at.columns.end; s++) {
                const X *from = at.x + u * f.Dh * f.x.row + s * f.Dw * f.x.pixel + c;
#pragma GCC unroll 2
                for (int v = 0; v < V; v++)
                    sum[0][v] += load<F>(weight + (u * f.Kw + s + v * f.Kh * f.Kw) * L) *
                                 load_numbers<F>(from + v * L);
            }
        finish_pixels<F, 1, V>(f.epilogue, sum, c, (V - 1) * L, at.out + c, f.out.pixel,
                               at.residual ? at.residual + c : nullptr);
    }
    template <class I, int K, int S, bool Inside>
    JSC_INLINE void four_of_all_channels(const DepthwiseFields &f, const Place &at) {
        using F = Vec<I, float>;
        constexpr int L = lanes<I, float>, V = K == 3 || I::bytes == 64 ? 2 : 1;  // as registers allow
        const float *weight = constant(f.weight);
        const int64_t C = f.x.C, taps = f.Kh * K;
        int64_t c = 0;
        for (; c + V * L <= C; c += V * L) four<F, K, S, V, Inside>(f, at, c, weight + c * taps);
        if constexpr (V > 1)
            for (; c + L <= C; c += L) four<F, K, S, 1, Inside>(f, at, c, weight + c * taps);
        if (c < C) four<F, K, S, 1, Inside>(f, at, C - L, weight + c * taps);
    }
    template <class I>
    JSC_INLINE void one_of_all_channels(const DepthwiseFields &f, const Place &at) {
        using F = Vec<I, float>;
        constexpr int L = lanes<I, float>;
        const float *weight = constant(f.weight);
        const int64_t C = f.x.C, taps = f.Kh * f.Kw;
        int64_t c = 0;
        for (; c + 2 * L <= C; c += 2 * L) one<F, 2>(f, at, c, weight + c * taps);
        for (; c + L <= C; c += L) one<F, 1>(f, at, c, weight + c * taps);
        if (c < C && C >= L) one<F, 1>(f, at, C - L, weight + c * taps);
        else
            for (; c < C; c++) one<One, 1>(f, at, c, weight + c * taps);
    }
    // The pixels of an output row from `x` on, whose columns of the input are from ix on.
    JSC_INLINE Place place(const DepthwiseFields &f, const Call &call, int64_t n, int64_t y, int64_t x) {
        const int64_t iy = y * f.Sh - f.Ph, ix = x * f.Sw - f.Pw;
        const Map &more = f.epilogue.residual;
        return {at<X>(f.x, call, n) + iy * f.x.row + ix * f.x.pixel, at<T>(f.out, call, n, y, x),
                f.epilogue.has_residual ? at<T>(more, call, n, y, x) : nullptr,
                Window::of(iy, f.Kh, f.Dh, f.x.H), Window::of(ix, f.Kw, f.Dw, f.x.W)};
    }
};

// Rows of a kernel K wide at stride S.
template <int K, int S, class X, class T>
struct DepthwiseRows : DepthwiseTiles<X, T> {
    using Tiles = DepthwiseTiles<X, T>;
    template <class I>
    JSC_INLINE void run(const DepthwiseFields *fields, int64_t n, int64_t y0, int64_t y_end,
                        const Call *call) {
        constexpr int columns = 3 * S + K;
        const DepthwiseFields &f = *fields;
        for (int64_t y = y0; y < y_end; y++)
            for (int64_t next = 0; next < f.out.W; next += 4) {
                const int64_t x = std::min(next, f.out.W - 4);
                auto p = Tiles::place(f, *call, n, y, x);
                p.columns = Window::of(x * S - f.Pw, columns, 1, f.x.W);
                if (p.columns.taps() == columns) Tiles::template four_of_all_channels<I, K, S, true>(f, p);
                else Tiles::template four_of_all_channels<I, K, S, false>(f, p);
            }
    }
};

template <class X, class T>
struct DepthwiseKernel : DepthwiseTiles<X, T> {
    using Tiles = DepthwiseTiles<X, T>;
    template <class I>
    JSC_INLINE void run(const DepthwiseFields *f, int64_t n, int64_t y0, int64_t y_end, const Call *call) {
        if (f->Dw == 1 && f->out.W >= 4 && f->x.C >= lanes<I, float>) {
            const int64_t K = f->Kw, S = f->Sw;
            if (K == 3 && S == 1) return call_apart<I, DepthwiseRows<3, 1, X, T>>(f, n, y0, y_end, call);
            if (K == 3 && S == 2) return call_apart<I, DepthwiseRows<3, 2, X, T>>(f, n, y0, y_end, call);
            if (K == 5 && S == 1) return call_apart<I, DepthwiseRows<5, 1, X, T>>(f, n, y0, y_end, call);
            if (K == 5 && S == 2) return call_apart<I, DepthwiseRows<5, 2, X, T>>(f, n, y0, y_end, call);
            if (K == 7 && S == 1) return call_apart<I, DepthwiseRows<7, 1, X, T>>(f, n, y0, y_end, call);
            if (K == 7 && S == 2) return call_apart<I, DepthwiseRows<7, 2, X, T>>(f, n, y0, y_end, call);
        }
        for (int64_t y = y0; y < y_end; y++)
            for (int64_t x = 0; x < f->out.W; x++)
                Tiles::template one_of_all_channels<I>(*f, Tiles::place(*f, *call, n, y, x));
    }
};

struct Depthwise final : Instruction {
    DepthwiseFields f;
    int64_t rows;
    explicit Depthwise(const DepthwiseFields &fields) : f(fields) {
        rows = rows_to_a_band(f.out.H, f.out.W * f.out.C * f.Kh * f.Kw / 4 + 1);
    }
    int64_t tasks(int64_t) const override { return f.out.N * ceil_div(f.out.H, rows); }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t bands = ceil_div(f.out.H, rows), y = task % bands * rows;
        const int64_t n = task / bands, y_end = std::min(y + rows, f.out.H);
        dispatch_maps<DepthwiseKernel>(isa, f.x, f.out, &f, n, y, y_end, &call);
    }
};

}  // namespace jsc::network
