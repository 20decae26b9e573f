// Direct convolution, 3 wide, whose filters see few channels: groups of a few, or the first layer's three.
//
//   out[n, y, x, k] = act(sum(u, c, s) w[k, c, u, s] in[n, S y + Dh u - Ph, S x + s - Pw, c]
//                         + shift[k] + residual[n, y, x, k])
//
// Tile: P neighbouring output pixels of a row by V vectors of filters. For each kernel row and channel, the
// 3 V weights lie in registers while the (P - 1) S + 3 columns of the input go past: a number is broadcast
// once for all the taps that meet it, where a tap by tap order broadcasts it three times and works out P
// addresses for each tap. Columns outside the map are passed over. The last tile of a row and the last
// vector of a group's filters begin earlier, so that they are whole: what two tiles share is computed twice.
//
// Weights: for each group, block of V vectors: (Kh, channel, 3, V lanes). A lane is a filter; groups of
// fewer filters than a vector has lanes take one half as wide.
//
// Order of additions: u, channel, s, one chain of multiply-adds from zero, whatever the tiling; taps that
// hang over are left out.
#pragma once
#include "network/activation.h"
#include "network/pool.h"

namespace jsc::network {

struct GroupedFields {
    Map x, out;
    int64_t Kh, S, Ph, Pw, Dh, groups;
    int64_t width;  // lanes of a vector
    int64_t band_rows;  // output rows of a task
    uint64_t weight;
    Epilogue epilogue;
};

// Tiles of P pixels at stride S; vectors of the whole width, or of half.
template <int P, int V, int S, bool Half>
struct GroupedBand {
    // W vectors of filters from k on. `Inside`: no column hangs over.
    template <class F, int W, bool Inside>
    JSC_INLINE void tile(const GroupedFields &f, const float *x, const float *weight, int64_t k, float *out,
                         const float *residual, Window rows, Window columns) {
        constexpr int L = sizeof(F) / 4, J = (P - 1) * S + 3;
        const int64_t C = f.x.C / f.groups, pixel = f.x.pixel;
        F sum[P][W];
#pragma GCC unroll 8
        for (int p = 0; p < P; p++)
#pragma GCC unroll 2
            for (int v = 0; v < W; v++) sum[p][v] = F{};
        weight += rows.first * C * 3 * W * L;
        for (int64_t u = rows.first; u < rows.end; u++) {
            const float *row = x + u * f.Dh * f.x.row;
            for (int64_t c = 0; c < C; c++, weight += 3 * W * L) {
                F w[3][W];
#pragma GCC unroll 3
                for (int s = 0; s < 3; s++)
#pragma GCC unroll 2
                    for (int v = 0; v < W; v++) w[s][v] = load<F>(weight + (s * W + v) * L);
                const float *from = row + c;
#pragma GCC unroll 17
                for (int j = 0; j < J; j++, from += pixel) {
                    keep_in_register(from);
                    if (!Inside && (j < columns.first || j >= columns.end)) continue;
                    F number = *from - F{};  // a broadcast: x - 0 is x for each x
                    keep_in_register(number);
#pragma GCC unroll 3
                    for (int s = 0; s < 3; s++)
                        if (j >= s && (j - s) % S == 0 && (j - s) / S < P)
#pragma GCC unroll 2
                            for (int v = 0; v < W; v++) sum[(j - s) / S][v] += w[s][v] * number;
                }
            }
        }
        finish_pixels<F, P, W>(f.epilogue, sum, k, (W - 1) * L, out + k, f.out.pixel,
                               residual ? residual + k : nullptr);
    }
    template <class F, int W>
    JSC_INLINE void at_column(const GroupedFields &f, int64_t ix, const float *x, const float *weight,
                              int64_t k, float *out, const float *residual, Window rows) {
        const Window columns{std::max<int64_t>(0, -ix), std::min<int64_t>((P - 1) * S + 3, f.x.W - ix)};
        if (columns.first == 0 && columns.end == (P - 1) * S + 3)
            tile<F, W, true>(f, x, weight, k, out, residual, rows, columns);
        else tile<F, W, false>(f, x, weight, k, out, residual, rows, columns);
    }
    // The filters of all groups at P pixels.
    template <class F>
    JSC_INLINE void filters(const GroupedFields &f, int64_t ix, const float *x, float *out,
                            const float *residual, Window rows) {
        constexpr int L = sizeof(F) / 4;
        const int64_t C = f.x.C / f.groups, K = f.out.C / f.groups, taps = f.Kh * C * 3;
        const float *weight = constant(f.weight);
        for (int64_t g = 0; g < f.groups; g++) {
            int64_t k = 0;
            if constexpr (V == 2)
                for (; k + 2 * L <= K; k += 2 * L, weight += taps * 2 * L)
                    at_column<F, V>(f, ix, x + g * C, weight, g * K + k, out, residual, rows);
            for (; k < K; k += L, weight += taps * L)
                at_column<F, 1>(f, ix, x + g * C, weight, g * K + std::min(k, K - L), out, residual, rows);
        }
    }
    template <class F>
    JSC_INLINE void band(const GroupedFields &f, const Call &call, int64_t n, int64_t y0, int64_t y_end) {
        for (int64_t y = y0; y < y_end; y++) {
            const int64_t iy = y * S - f.Ph;
            const Window rows = Window::of(iy, f.Kh, f.Dh, f.x.H);
            const float *row = at(f.x, call, n) + iy * f.x.row;
            const float *residual = f.epilogue.has_residual ? at(f.epilogue.residual, call, n, y) : nullptr;
            for (int64_t next = 0; next < f.out.W; next += P) {
                const int64_t x = std::min(next, f.out.W - P), ix = x * S - f.Pw;
                filters<F>(f, ix, row + ix * f.x.pixel, at(f.out, call, n, y, x),
                           residual ? residual + x * f.epilogue.residual.pixel : nullptr, rows);
            }
        }
    }
    template <class I>
    JSC_INLINE void run(const GroupedFields *f, int64_t n, int64_t y0, int64_t y_end, const Call *call) {
        band<typename VectorOf<float, Half ? I::bytes / 2 : I::bytes>::type>(*f, *call, n, y0, y_end);
    }
};

struct GroupedKernel {
    template <class I, int S, bool Half>
    JSC_INLINE void at_stride(const GroupedFields *f, int64_t n, int64_t y0, int64_t y_end,
                              const Call *call) {
        const int64_t W = f->out.W;
        if constexpr (!Half)
            if (f->out.C / f->groups >= 2 * lanes<I, float>)
                return call_apart<I, GroupedBand<4, 2, S, Half>>(f, n, y0, y_end, call);
        const bool eight = W >= 8 && ceil_div(W, 8) * 2 <= ceil_div(W, 4);
        if (eight) call_apart<I, GroupedBand<8, 1, S, Half>>(f, n, y0, y_end, call);
        else call_apart<I, GroupedBand<4, 1, S, Half>>(f, n, y0, y_end, call);
    }
    template <class I>
    JSC_INLINE void run(const GroupedFields *f, int64_t n, int64_t y0, int64_t y_end, const Call *call) {
        if (f->width == lanes<I, float>) {
            if (f->S == 1) at_stride<I, 1, false>(f, n, y0, y_end, call);
            else at_stride<I, 2, false>(f, n, y0, y_end, call);
        } else if constexpr (I::bytes > 16) {
            if (f->S == 1) at_stride<I, 1, true>(f, n, y0, y_end, call);
            else at_stride<I, 2, true>(f, n, y0, y_end, call);
        }
    }
};

struct Grouped final : Instruction {
    GroupedFields f;
    explicit Grouped(const GroupedFields &fields) : f(fields) {}
    int64_t tasks(int64_t) const override { return f.out.N * ceil_div(f.out.H, f.band_rows); }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t bands = ceil_div(f.out.H, f.band_rows), y = task % bands * f.band_rows;
        dispatch<GroupedKernel>(isa, &f, task / bands, y, std::min(y + f.band_rows, f.out.H), &call);
    }
};

}  // namespace jsc::network
