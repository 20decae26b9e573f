// Depthwise convolution: each channel has a kernel of its own.
//
//   out[n, y, x, c] = act(scale[c] sum(u, v) w[u, v, c] in[n, Sh y + Dh u - Ph, Sw x + Dw v - Pw, c]
//                         + shift[c] + residual[n, y, x, c])
//
// Channels are the lanes. Four output pixels of a row by two vectors of channels are summed up together: a
// weight is loaded once for four multiply-adds, whose other operand comes from memory. Two loads a cycle
// bound it, which is about .8 of the multiply-adds. Channels are the inner loop, so that all streams are
// dense. Pixels whose kernel hangs over the map's left or right go one by one, with the taps that they
// have.
//
// Order of additions: u, then v, from zero; taps that hang over are left out.
#pragma once
#include "network/activation.h"
#include "network/pool.h"

namespace jsc::network {

struct DepthwiseFields {
    Map x, out;
    int64_t Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw;
    uint64_t weight;  // (Kh, Kw, C)
    Epilogue epilogue;
};

struct DepthwiseKernel {
    // P neighbouring pixels, V vectors at channel c; K: width of the kernel where it is known, 0 otherwise.
    template <class F, int P, int V, int K>
    JSC_INLINE void channels(const DepthwiseFields &f, const float *x, float *out, const float *residual,
                             int64_t c, Window h, Window w) {
        constexpr int L = sizeof(F) / 4;
        const int64_t C = f.x.C, step = f.Sw * f.x.pixel;
        F sum[P][V];
#pragma GCC unroll 4
        for (int p = 0; p < P; p++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) sum[p][v] = F{};
        for (int64_t u = h.first; u < h.end; u++) {
            const float *weight = constant(f.weight) + u * f.Kw * C + c;
            const float *row = x + u * f.Dh * f.x.row + c;
            const int64_t first = K ? 0 : w.first, end = K ? K : w.end;
#pragma GCC unroll 5
            for (int64_t s = first; s < end; s++) {
                const float *from = row + s * f.Dw * f.x.pixel;
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) {
                    const F tap = load<F>(weight + s * C + v * L);
#pragma GCC unroll 4
                    for (int p = 0; p < P; p++) sum[p][v] += tap * load<F>(from + p * step + v * L);
                }
            }
        }
        const int64_t step_out = f.out.pixel, step_residual = f.epilogue.residual.pixel;
        alignas(64) float numbers[P * V * L];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            const auto last = QuickEpilogue<sizeof(F)>::of(f.epilogue, c + v * L);
            const float *more = residual ? residual + c + v * L : nullptr;
#pragma GCC unroll 4
            for (int p = 0; p < P; p++) {
                const F value = last(sum[p][v], more ? more + p * step_residual : nullptr);
                if (quick(f.epilogue)) store(out + p * step_out + c + v * L, value);
                else store(numbers + (p * V + v) * L, value);
            }
        }
        if (quick(f.epilogue)) return;
        activate_all<F>(numbers, P * V * L, f.epilogue.act);
#pragma GCC unroll 4
        for (int p = 0; p < P; p++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++)
                store(out + p * step_out + c + v * L, load<F>(numbers + (p * V + v) * L));
    }
    template <class I, int P, int K>
    JSC_INLINE void pixels(const DepthwiseFields &f, const float *x, float *out, const float *residual,
                           Window h, Window w) {
        using F = Vec<I, float>;
        typedef float One __attribute__((vector_size(4)));
        constexpr int L = lanes<I, float>;
        int64_t c = 0;
        for (; c + 2 * L <= f.x.C; c += 2 * L) channels<F, P, 2, K>(f, x, out, residual, c, h, w);
        for (; c + L <= f.x.C; c += L) channels<F, P, 1, K>(f, x, out, residual, c, h, w);
        for (; c < f.x.C; c++) channels<One, P, 1, K>(f, x, out, residual, c, h, w);
    }
    template <class I, int K>
    JSC_INLINE void row(const DepthwiseFields &f, const Call &call, int64_t n, int64_t y) {
        const int64_t iy = y * f.Sh - f.Ph;
        const Window h = Window::of(iy, f.Kh, f.Dh, f.x.H);
        const float *from = at(f.x, call, n) + iy * f.x.row;
        float *to = at(f.out, call, n, y);
        const float *residual = f.epilogue.has_residual ? at(f.epilogue.residual, call, n, y) : nullptr;
        // Pixels whose kernels lie inside the map: first, ... inside - 1.
        const int64_t reach = (f.Kw - 1) * f.Dw, last = f.x.W - 1 - reach + f.Pw;
        const int64_t first = std::min(f.out.W, ceil_div(f.Pw, f.Sw)),
                      inside = last < 0 ? first : std::max(first, std::min(f.out.W, last / f.Sw + 1));
        for (int64_t x = 0; x < f.out.W;) {
            const int64_t ix = x * f.Sw - f.Pw;
            const float *pixel = from + ix * f.x.pixel;
            const float *more = residual ? residual + x * f.epilogue.residual.pixel : nullptr;
            float *out = to + x * f.out.pixel;
            if (x >= first && x + 4 <= inside) {
                pixels<I, 4, K>(f, pixel, out, more, h, Window{0, f.Kw});
                x += 4;
            } else {
                pixels<I, 1, 0>(f, pixel, out, more, h, Window::of(ix, f.Kw, f.Dw, f.x.W));
                x += 1;
            }
        }
    }
    template <class I>
    JSC_INLINE void run(const DepthwiseFields *f, int64_t n, int64_t first, int64_t rows, const Call *call) {
        for (int64_t y = first; y < first + rows; y++)
            if (f->Kw == 3) row<I, 3>(*f, *call, n, y);
            else if (f->Kw == 5) row<I, 5>(*f, *call, n, y);
            else row<I, 0>(*f, *call, n, y);
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
        dispatch<DepthwiseKernel>(isa, &f, task / bands, y, std::min(rows, f.out.H - y), &call);
    }
};

}  // namespace jsc::network
