// Direct convolution, 3 or 7 wide, whose filters see few channels: groups of a few, or an image's three.
//
//   out[n, y, x, k] = act(sum(u, c, s) w[k, c, u, s] in[n, S y + Dh u - Ph, S x + s - Pw, c]
//                         + shift[k] + residual[n, y, x, k])
//
// Tile: P neighbouring output pixels of a row by V vectors of filters. For each kernel row and channel, the
// T V weights lie in registers while the (P - 1) S + T columns of the input go past: a number is broadcast
// once for all the taps that meet it, where a tap by tap order broadcasts it T times and works out P
// addresses for each tap. Columns outside the map are passed over. The last tile of a row and the last
// vector of a group's filters begin earlier, so that they are whole: what two tiles share is computed twice.
//
// Weights: for each group, block of V vectors: (Kh, channel, T, V lanes). A lane is a filter. Groups of fewer
// filters than a vector has lanes lie in it side by side, if each has as many filters as channels: the
// number of a lane is then that of its own group's channel, taken from a vector of neighbouring channels.
// Other such groups take a vector half as wide.
//
// Order of additions: u, channel, s, one chain of multiply-adds from zero, whatever the tiling; taps that
// hang over are left out. Of 7 columns each kernel row is a chain from zero, and the rows are added: the
// error of ResNet's first layer is 1.8e-7 of the largest output then, in one chain 4.4e-7, torch's 5.4e-7,
// in the same time.
//
// Versions, on one thread of an AMD EPYC with AVX-512, us. First layers as rows of windows by convolution.h,
// and here: 7x7/2 of 64 filters 2800, 2120; 3x3/2 of 32 281, 222; 3x3 of 64 2640, 2020. RegNet's groups of 8
// in half vectors, and two to a vector: 104 at 28 281, 201; 440 at 7 58, 43. ResNeXt's 32 groups of 4 at 56
// by convolution.h, and four to a vector: 3560, 309. All of them and torch: benchmarks/results/dense.md.
#pragma once
#include "network/activation.h"
#include "network/pool.h"

namespace jsc::network {

struct GroupedFields {
    Map x, out;
    int64_t Kh, T, S, Ph, Pw, Dh, groups;
    int64_t width;  // lanes of a vector; more than a group's filters: several groups lie in it
    int64_t band_rows;  // output rows of a task
    uint64_t weight;
    Epilogue epilogue;
};

enum class Filling { whole, half, several };  // of a vector: by one group, which half fills it, or by more

// Tiles of P pixels at stride S, for kernels of T columns; `Out`: the numbers of output and residual.
template <int P, int V, int S, int T, Filling Fill, class Out>
struct GroupedBand {
    // For each lane, the channel of its own group that is number c there.
    template <class N>
    JSC_INLINE N channel_of_lane(int64_t per_group, int64_t c) {
        N lane;
#pragma GCC unroll 16
        for (int i = 0; i < int(sizeof(N) / 4); i++) lane[i] = i;
        return (lane & -int32_t(per_group)) + int32_t(c);  // groups are powers of two here
    }
    // W vectors of filters from k on. `Inside`: no column hangs over.
    template <class F, int W, bool Inside>
    JSC_INLINE void tile(const GroupedFields &f, const float *x, const float *weight, int64_t k, Out *out,
                         const Out *residual, Window rows, Window columns) {
        using Channels = typename VectorOf<int32_t, sizeof(F)>::type;
        constexpr int L = sizeof(F) / 4, J = (P - 1) * S + T;
        constexpr bool several = Fill == Filling::several;
        const int64_t C = f.x.C / f.groups, pixel = f.x.pixel;
        F sum[P][W], rows_before[P][W];
#pragma GCC unroll 8
        for (int p = 0; p < P; p++)
#pragma GCC unroll 2
            for (int v = 0; v < W; v++) rows_before[p][v] = sum[p][v] = F{};
        weight += rows.first * C * T * W * L;
        for (int64_t u = rows.first; u < rows.end; u++) {
            const float *row = x + u * f.Dh * f.x.row;
            for (int64_t c = 0; c < C; c++, weight += T * W * L) {
                F w[T][W];
#pragma GCC unroll 7
                for (int s = 0; s < T; s++)
#pragma GCC unroll 2
                    for (int v = 0; v < W; v++) w[s][v] = load<F>(weight + (s * W + v) * L);
                const Channels channels = several ? channel_of_lane<Channels>(C, c) : Channels{};
                const float *from = several ? row : row + c;
#pragma GCC unroll 21
                for (int j = 0; j < J; j++, from += pixel) {
                    keep_in_register(from);
                    if (!Inside && (j < columns.first || j >= columns.end)) continue;
                    F number;
                    if constexpr (several) number = __builtin_shuffle(load<F>(from), channels);
                    else number = *from - F{};  // a broadcast: x - 0 is x for each x
                    keep_in_register(number);
#pragma GCC unroll 7
                    for (int s = 0; s < T; s++)
                        if (j >= s && (j - s) % S == 0 && (j - s) / S < P)
#pragma GCC unroll 2
                            for (int v = 0; v < W; v++) sum[(j - s) / S][v] += w[s][v] * number;
                }
            }
            if constexpr (T == 7) {
#pragma GCC unroll 8
                for (int p = 0; p < P; p++)
#pragma GCC unroll 2
                    for (int v = 0; v < W; v++) {
                        rows_before[p][v] += sum[p][v];
                        sum[p][v] = F{};
                    }
            }
        }
        if constexpr (T == 7) std::swap(sum, rows_before);
        finish_pixels<F, P, W>(f.epilogue, sum, k, (W - 1) * L, out + k, f.out.pixel,
                               residual ? residual + k : nullptr);
    }
    template <class F, int W>
    JSC_INLINE void at_column(const GroupedFields &f, int64_t ix, const float *x, const float *weight,
                              int64_t k, Out *out, const Out *residual, Window rows) {
        const Window columns{std::max<int64_t>(0, -ix), std::min<int64_t>((P - 1) * S + T, f.x.W - ix)};
        if (columns.first == 0 && columns.end == (P - 1) * S + T)
            tile<F, W, true>(f, x, weight, k, out, residual, rows, columns);
        else tile<F, W, false>(f, x, weight, k, out, residual, rows, columns);
    }
    // The filters of all groups at P pixels.
    template <class F>
    JSC_INLINE void filters(const GroupedFields &f, int64_t ix, const float *x, Out *out, const Out *residual,
                            Window rows) {
        constexpr int L = sizeof(F) / 4;
        const int64_t C = f.x.C / f.groups, K = f.out.C / f.groups, taps = f.Kh * C * T;
        const float *weight = constant(f.weight);
        if constexpr (Fill == Filling::several) {
            for (int64_t next = 0; next < f.out.C; next += L, weight += taps * L) {
                const int64_t k = std::min(next, f.out.C - L);
                at_column<F, 1>(f, ix, x + k, weight, k, out, residual, rows);
            }
            return;
        }
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
            const bool more = f.epilogue.has_residual;
            const Out *residual = more ? at<Out>(f.epilogue.residual, call, n, y) : nullptr;
            for (int64_t next = 0; next < f.out.W; next += P) {
                const int64_t x = std::min(next, f.out.W - P), ix = x * S - f.Pw;
                filters<F>(f, ix, row + ix * f.x.pixel, at<Out>(f.out, call, n, y, x),
                           residual ? residual + x * f.epilogue.residual.pixel : nullptr, rows);
            }
        }
    }
    template <class I>
    JSC_INLINE void run(const GroupedFields *f, int64_t n, int64_t y0, int64_t y_end, const Call *call) {
        constexpr int bytes = Fill == Filling::half ? I::bytes / 2 : I::bytes;
        band<typename VectorOf<float, bytes>::type>(*f, *call, n, y0, y_end);
    }
};

template <class Out>
struct GroupedKernel {
    template <class I, int S, Filling Fill>
    JSC_INLINE void at_stride(const GroupedFields *f, int64_t n, int64_t y0, int64_t y_end,
                              const Call *call) {
        const int64_t W = f->out.W;
        if constexpr (Fill == Filling::whole)
            if (f->out.C / f->groups >= 2 * lanes<I, float>)
                return call_apart<I, GroupedBand<4, 2, S, 3, Fill, Out>>(f, n, y0, y_end, call);
        const bool eight = W >= 8 && ceil_div(W, 8) * 2 <= ceil_div(W, 4);
        if (eight) call_apart<I, GroupedBand<8, 1, S, 3, Fill, Out>>(f, n, y0, y_end, call);
        else call_apart<I, GroupedBand<4, 1, S, 3, Fill, Out>>(f, n, y0, y_end, call);
    }
    template <class I>
    JSC_INLINE void run(const GroupedFields *f, int64_t n, int64_t y0, int64_t y_end, const Call *call) {
        if (f->T == 7)
            return f->S == 1 ? seven_wide<I, 1>(f, n, y0, y_end, call)
                             : seven_wide<I, 2>(f, n, y0, y_end, call);
        if (f->width > f->out.C / f->groups) filled<I, Filling::several>(f, n, y0, y_end, call);
        else if (f->width == lanes<I, float>) filled<I, Filling::whole>(f, n, y0, y_end, call);
        else if constexpr (I::bytes > 16) filled<I, Filling::half>(f, n, y0, y_end, call);
    }
    template <class I, int S>
    JSC_INLINE void seven_wide(const GroupedFields *f, int64_t n, int64_t y0, int64_t y_end,
                               const Call *call) {
        constexpr Filling whole = Filling::whole;
        if constexpr (I::bytes == 64)
            if (f->out.W >= 8)
                return call_apart<I, GroupedBand<8, 1, S, 7, whole, Out>>(f, n, y0, y_end, call);
        call_apart<I, GroupedBand<4, 1, S, 7, whole, Out>>(f, n, y0, y_end, call);
    }
    template <class I, Filling Fill>
    JSC_INLINE void filled(const GroupedFields *f, int64_t n, int64_t y0, int64_t y_end, const Call *call) {
        if (f->S == 1) at_stride<I, 1, Fill>(f, n, y0, y_end, call);
        else at_stride<I, 2, Fill>(f, n, y0, y_end, call);
    }
};

struct Grouped final : Instruction {
    GroupedFields f;
    explicit Grouped(const GroupedFields &fields) : f(fields) {}
    int64_t tasks(int64_t) const override { return f.out.N * ceil_div(f.out.H, f.band_rows); }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t bands = ceil_div(f.out.H, f.band_rows), y = task % bands * f.band_rows;
        const int64_t n = task / bands, y_end = std::min(y + f.band_rows, f.out.H);
        dispatch_maps<GroupedKernel>(isa, f.out, &f, n, y, y_end, &call);
    }
};

}  // namespace jsc::network
