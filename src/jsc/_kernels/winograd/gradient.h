// The gradient of 3 x 3 weights of stride 1, by Winograd's transforms.
//
//   gw[k, c, u, s] = sum(n, y, x) g[n, y, x, k] in[n, y + u - P, x + s - P, c]
//                  = Gv' [ sum(tiles) Q[k] .* V[c] ] Gh,   V = Bv in Bh',   Q = Av' g Ah   (.* by position)
//
// which is the adjoint of the convolution of network/winograd.h (the transforms: transforms.h): 2.25 times
// fewer products with tiles of 2 x 2, 3 and 4 times with 2 x 4 and 4 x 4.
//
// For each position this is a product of two matrices, (C, tiles) and (tiles, K). T tiles at a time are
// transformed into the thread's scratch, in panels that the loops read from end to end: of 16 channels, and
// of V vectors of filters. R channels by V vectors of sums are in registers while T tiles go past.
//
// Rounds: 1. sums of a range of tiles, for a group of filter blocks; 2. all ranges added up and transformed
// back. How many ranges there are follows from the sizes and the instruction set. Order of additions: T tiles
// in one chain, then the chains of a range in order, then the ranges in order.
//
// On one thread of an AMD EPYC with AVX-512, 64 maps, times as fast as torch's channels-last pass, with tiles
// of 2 x 2 and of 4 x 4: 64 to 64 channels at 32 x 32 1.7 and 2.3, 128 to 128 at 16 x 16 1.7 and 2.3, 256 to
// 512 at 4 x 4 1.6 and 1.8, 32 to 32 at 16 x 16 1.3 and 1.9, 16 to 16 at 32 x 32 0.9 and 1.1. A version with
// 16 or 36 pointers to each tile's pixels, and a broadcast kept in a register for one vector of filters: 32
// channels 1.2 and 1.7, 16 channels 0.8 and 0.9.
//
// A number that is not finite, or one that overflows, makes sums that are not finite: `end` then says so, and
// the gradient is to be taken in another way.
#pragma once
#include <algorithm>
#include <cstdint>

#include "winograd/transforms.h"

namespace jsc {

constexpr ptrdiff_t WINOGRAD_PANEL = 16;  // channels

struct WinogradGradFields {
    ptrdiff_t N, C, H, W, K, Oh, Ow, Ph, Pw;  // of the convolution; maps are channels-last, without gaps
    ptrdiff_t mv, mh;  // outputs of a tile
    ptrdiff_t vectors;  // V, to a block of filters
    ptrdiff_t blocks;  // of a group
    ptrdiff_t tiles;  // T
    ptrdiff_t ranges;
};

struct WinogradGradCall {
    const float *x, *grad;
    float *weight_grad;  // element (0, 0, 0, 0)
    ptrdiff_t k_step, c_step, i_step, j_step;
    char *scratch;
};

// Sizes that follow from the fields and the number of lanes.
struct WinogradGradSizes {
    ptrdiff_t positions, across, down, total, range_tiles, panels, width, all_blocks, groups;
    WinogradGradSizes(const WinogradGradFields &f, ptrdiff_t lanes) {
        positions = (f.mv + 2) * (f.mh + 2);
        across = (f.Ow + f.mh - 1) / f.mh, down = (f.Oh + f.mv - 1) / f.mv, total = f.N * down * across;
        const ptrdiff_t steps = (total + f.tiles - 1) / f.tiles;
        range_tiles = (steps + f.ranges - 1) / f.ranges * f.tiles;
        panels = (f.C + WINOGRAD_PANEL - 1) / WINOGRAD_PANEL;
        width = f.vectors * lanes;
        all_blocks = (f.K + width - 1) / width, groups = (all_blocks + f.blocks - 1) / f.blocks;
    }
    ptrdiff_t block_sums() const { return positions * panels * WINOGRAD_PANEL * width; }
    ptrdiff_t input_floats(const WinogradGradFields &f) const {
        return positions * panels * WINOGRAD_PANEL * f.tiles;
    }
    ptrdiff_t thread_floats(const WinogradGradFields &f) const {
        return input_floats(f) + f.blocks * positions * f.tiles * width;
    }
};

struct WinogradGradKernel {
    // Transformed channels of `count` tiles from `first`: (positions, panels, T, 16).
    template <class I, int mv, int mh>
    JSC_INLINE void inputs(const WinogradGradFields &f, const WinogradGradSizes &s, const float *x,
                           ptrdiff_t first, ptrdiff_t count, float *to) {
        using F = Vec<I, float>;
        constexpr int L = lanes<I, float>, nv = mv + 2, nh = mh + 2;
        const ptrdiff_t step = s.panels * f.tiles * WINOGRAD_PANEL;
        ptrdiff_t tw = first % s.across, th = first / s.across % s.down, n = first / s.across / s.down;
        for (ptrdiff_t t = 0; t < count; t++) {
            const ptrdiff_t iy = th * mv - f.Ph, ix = tw * mh - f.Pw;
            const Whole<> whole{x + ((n * f.H + iy) * f.W + ix) * f.C, f.W * f.C, f.C};
            const Clipped<> clipped{whole, -iy, -ix, f.H - iy, f.W - ix};
            const bool inside = iy >= 0 && iy + nv <= f.H && ix >= 0 && ix + nh <= f.W;
            // Where channel c of this tile goes, less c.
            const auto place = [&](ptrdiff_t c) {
                return to + (c / WINOGRAD_PANEL * f.tiles + t) * WINOGRAD_PANEL + c % WINOGRAD_PANEL - c;
            };
            ptrdiff_t c = 0;
            if (inside)
                for (; c + L <= f.C; c += L) transform_input<F, mv, mh>(whole, c, place(c), step);
            for (; c + L <= f.C; c += L) transform_input<F, mv, mh>(clipped, c, place(c), step);
            for (; c < f.C; c++) transform_input<One, mv, mh>(clipped, c, place(c), step);
            for (; c < s.panels * WINOGRAD_PANEL; c++)
                for (int p = 0; p < nv * nh; p++) place(c)[p * step + c] = 0;
            if (++tw == s.across) {
                tw = 0;
                if (++th == s.down) th = 0, n++;
            }
        }
    }
    // Transformed gradients of the filters of a block from k0: (positions, T, V lanes).
    template <class I, int mv, int mh>
    JSC_INLINE void outputs(const WinogradGradFields &f, const WinogradGradSizes &s, const float *grad,
                            ptrdiff_t first, ptrdiff_t count, ptrdiff_t k0, float *to) {
        using F = Vec<I, float>;
        constexpr int L = lanes<I, float>;
        const ptrdiff_t step = f.tiles * s.width, end = std::min(f.K, k0 + s.width);
        ptrdiff_t tw = first % s.across, th = first / s.across % s.down, n = first / s.across / s.down;
        for (ptrdiff_t t = 0; t < count; t++) {
            const ptrdiff_t y = th * mv, x = tw * mh;
            const Whole<> whole{grad + ((n * f.Oh + y) * f.Ow + x) * f.K, f.Ow * f.K, f.K};
            const Clipped<> clipped{whole, 0, 0, f.Oh - y, f.Ow - x};
            float *tile = to + t * s.width - k0;
            ptrdiff_t k = k0;
            if (y + mv <= f.Oh && x + mh <= f.Ow)
                for (; k + L <= end; k += L) transform_output_adjoint<F, mv, mh>(whole, k, tile, step);
            for (; k + L <= end; k += L) transform_output_adjoint<F, mv, mh>(clipped, k, tile, step);
            for (; k < end; k++) transform_output_adjoint<One, mv, mh>(clipped, k, tile, step);
            for (; k < k0 + s.width; k++)
                for (int p = 0; p < (mv + 2) * (mh + 2); p++) tile[p * step + k] = 0;
            if (++tw == s.across) {
                tw = 0;
                if (++th == s.down) th = 0, n++;
            }
        }
    }
    // sums[c, k] of a panel of channels and a block of filters, over `count` tiles; added to what is there.
    template <class I, int V>
    JSC_INLINE void product(const float *x, const float *grad, ptrdiff_t count, bool add, float *sums) {
        using F = Vec<I, float>;
        constexpr int L = lanes<I, float>;
        constexpr int R = I::bytes == 64 ? (V == 1 ? 16 : V == 2 ? 8 : 4) : V == 1 ? 8 : 4;
        for (ptrdiff_t c = 0; c < WINOGRAD_PANEL; c += R) {
            F sum[R][V];
#pragma GCC unroll 16
            for (int r = 0; r < R; r++)
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) sum[r][v] = F{};
            const float *from = x + c, *g = grad;
            for (ptrdiff_t t = 0; t < count; t++, from += WINOGRAD_PANEL, g += V * L) {
                F filter[V];
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) filter[v] = load<F>(g + v * L);
#pragma GCC unroll 16
                for (int r = 0; r < R; r++) {
                    F number = from[r] - F{};
                    if constexpr (V > 1) keep_in_register(number);
#pragma GCC unroll 4
                    for (int v = 0; v < V; v++) sum[r][v] += number * filter[v];
                }
            }
#pragma GCC unroll 16
            for (int r = 0; r < R; r++)
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) {
                    float *to = sums + ((c + r) * V + v) * L;
                    store(to, add ? load<F>(to) + sum[r][v] : sum[r][v]);
                }
        }
    }
    template <class I, int V>
    JSC_INLINE void products(const WinogradGradFields &f, const WinogradGradSizes &s, const float *x,
                             const float *grad, ptrdiff_t count, bool add, float *sums) {
        constexpr int L = lanes<I, float>;
        for (ptrdiff_t p = 0; p < s.positions; p++, grad += f.tiles * V * L)
            for (ptrdiff_t panel = 0; panel < s.panels; panel++) {
                product<I, V>(x, grad, count, add, sums);
                x += f.tiles * WINOGRAD_PANEL, sums += WINOGRAD_PANEL * V * L;
            }
    }
    // The sums of one range of tiles for one group of blocks: (blocks, positions, channels, V lanes).
    template <class I, int mv, int mh>
    JSC_INLINE void add_up(const WinogradGradFields &f, const WinogradGradCall &call, ptrdiff_t range,
                           ptrdiff_t group, float *memory, float *sums) {
        const WinogradGradSizes s(f, lanes<I, float>);
        float *x = memory, *grads = memory + s.input_floats(f);
        const ptrdiff_t end = std::min(s.total, (range + 1) * s.range_tiles);
        const ptrdiff_t b0 = group * f.blocks, b_end = std::min(s.all_blocks, b0 + f.blocks);
        sums += (range * s.all_blocks + b0) * s.block_sums();
        for (ptrdiff_t first = range * s.range_tiles; first < end; first += f.tiles) {
            const ptrdiff_t count = std::min(f.tiles, end - first);
            const bool add = first > range * s.range_tiles;
            inputs<I, mv, mh>(f, s, call.x, first, count, x);
            for (ptrdiff_t b = b0; b < b_end; b++) {
                float *grad = grads + (b - b0) * s.positions * f.tiles * s.width;
                float *to = sums + (b - b0) * s.block_sums();
                outputs<I, mv, mh>(f, s, call.grad, first, count, b * s.width, grad);
                switch (f.vectors) {
                case 1: products<I, 1>(f, s, x, grad, count, add, to); break;
                case 2: products<I, 2>(f, s, x, grad, count, add, to); break;
                case 3: products<I, 3>(f, s, x, grad, count, add, to); break;
                default:
                    if constexpr (I::bytes == 64) products<I, 4>(f, s, x, grad, count, add, to);
                }
            }
        }
    }
    // The gradient of a panel of channels and a block of filters, from all ranges; whether it is finite.
    template <class I, int mv, int mh>
    JSC_INLINE bool finish(const WinogradGradFields &f, const WinogradGradCall &call, ptrdiff_t b,
                           ptrdiff_t panel, const float *sums) {
        using F = Vec<I, float>;
        constexpr int L = lanes<I, float>, nv = mv + 2, nh = mh + 2;
        const WinogradGradSizes s(f, L);
        const ptrdiff_t step = s.panels * WINOGRAD_PANEL * s.width, range = s.all_blocks * s.block_sums();
        const ptrdiff_t c0 = panel * WINOGRAD_PANEL, channels = std::min(WINOGRAD_PANEL, f.C - c0);
        F probe{};
        for (ptrdiff_t k = 0; k < s.width && b * s.width + k < f.K; k += L)
            for (ptrdiff_t c = 0; c < channels; c++) {
                const float *from = sums + b * s.block_sums() + (c0 + c) * s.width + k;
                F half[3][nh];
#pragma GCC unroll 6
                for (int j = 0; j < nh; j++) {
                    F column[nv], turned[3];
#pragma GCC unroll 6
                    for (int i = 0; i < nv; i++) {
                        const float *at = from + (i * nh + j) * step;
                        column[i] = load<F>(at);
                        for (ptrdiff_t r = 1; r < f.ranges; r++) column[i] += load<F>(at + r * range);
                    }
                    Points<mv>::template weight_adjoint<F>(column, turned);
                    for (int i = 0; i < 3; i++) half[i][j] = turned[i];
                }
                alignas(64) float w[9][L];
#pragma GCC unroll 3
                for (int i = 0; i < 3; i++) {
                    F row[3];
                    Points<mh>::template weight_adjoint<F>(half[i], row);
                    for (int j = 0; j < 3; j++) store(w[3 * i + j], row[j]), probe += row[j] * 0.f;
                }
                const ptrdiff_t first = b * s.width + k, filters = std::min<ptrdiff_t>(L, f.K - first);
                float *to = call.weight_grad + first * call.k_step + (c0 + c) * call.c_step;
                for (ptrdiff_t l = 0; l < filters; l++, to += call.k_step)
                    for (int i = 0; i < 3; i++)
                        for (int j = 0; j < 3; j++) to[i * call.i_step + j * call.j_step] = w[3 * i + j][l];
            }
        return !nonzero_mask<F>(probe);
    }

    template <class I, int mv, int mh>
    JSC_INLINE void task(const WinogradGradFields &f, const WinogradGradCall &call, ptrdiff_t round,
                         ptrdiff_t index, float *memory, float *sums, char *finite) {
        const WinogradGradSizes s(f, lanes<I, float>);
        if (round == 0) add_up<I, mv, mh>(f, call, index / s.groups, index % s.groups, memory, sums);
        else finite[index] = finish<I, mv, mh>(f, call, index / s.panels, index % s.panels, sums);
    }
    template <class I>
    JSC_INLINE void run(const WinogradGradFields *f, const WinogradGradCall *call, ptrdiff_t round,
                        ptrdiff_t index, float *memory, float *sums, char *finite) {
        if (f->mv == 4) task<I, 4, 4>(*f, *call, round, index, memory, sums, finite);
        else if (f->mh == 4) task<I, 2, 4>(*f, *call, round, index, memory, sums, finite);
        else task<I, 2, 2>(*f, *call, round, index, memory, sums, finite);
    }
};

// Rounds of tasks, as _kernels/__init__.py says.
struct WinogradGradient {
    WinogradGradFields f;
    WinogradGradSizes s;
    WinogradGradient(const WinogradGradFields &fields, ptrdiff_t lanes) : f(fields), s(fields, lanes) {}
    ptrdiff_t rounds() const { return 2; }
    ptrdiff_t tasks(ptrdiff_t round) const {
        return round == 0 ? f.ranges * s.groups : s.all_blocks * s.panels;
    }
    // Sums of all ranges, what each thread works on, and a byte for each task of the second round.
    ptrdiff_t scratch_bytes(ptrdiff_t threads) const {
        return 4 * (sum_floats() + threads * s.thread_floats(f)) + tasks(1);
    }
    void run(int isa, ptrdiff_t round, ptrdiff_t index, ptrdiff_t thread, ptrdiff_t threads,
             const WinogradGradCall &call) const {
        float *sums = (float *)call.scratch, *memory = sums + sum_floats();
        dispatch<WinogradGradKernel>(isa, &f, &call, round, index, memory + thread * s.thread_floats(f), sums,
                                     finite(call, threads));
    }
    bool end(const WinogradGradCall &call, ptrdiff_t threads) const {
        const char *all = finite(call, threads);
        return std::all_of(all, all + tasks(1), [](char c) { return c != 0; });
    }

  private:
    ptrdiff_t sum_floats() const { return f.ranges * s.all_blocks * s.block_sums(); }
    char *finite(const WinogradGradCall &call, ptrdiff_t threads) const {
        return (char *)((float *)call.scratch + sum_floats() + threads * s.thread_floats(f));
    }
};

}  // namespace jsc
