// Winograd's minimal filtering for 3 x 3 kernels of stride 1:  F(2x2), F(2x4), F(4x4) outputs a tile.
//
//   out tile = Av [ sum(c) U[k, c] .* V[c] ] Ah',   V = Bv in Bh',   U = Gv w Gh'   (.* by position)
//
// A tile of mv x mh outputs needs (mv + 2)(mh + 2) products instead of 9 mv mh: 2.25, 3, 4 times fewer.
//
// The points, and why they were chosen: winograd/transforms.h. With tiles of 2 x 2 integers stay exact. U is
// made in float64 and rounded once.
//
// A task has `tiles` tiles and all filters. It transforms its input into the thread's scratch, (positions,
// tiles, C); then for each block of V vectors of filters it multiplies, position by position, six or more
// tiles at a time with all sums in registers (the loop of convolution.h), and transforms the block's
// products back while they are in the first cache. So the input is read once and transformed once, and the
// weights stream past once for each task.
//
// A number that is not finite would spread over its tile, because the transforms mix pixels (inf - inf),
// and a finite one may overflow in a transform. So where a tile's outputs are not all finite, they are
// computed again without transforms, from the `plain` weights.
//
// Versions, on one thread of an AMD EPYC with AVX-512. With 16 and 32 channels the set-up of a product's tile
// (16 or 36 pointers, four divisions) took as long as the transforms; pixels by address, and with one vector
// of filters the broadcast inside the multiply-add: F(2x2) .9 to 1.05 and F(4x4) 1.15 to 1.4 times torch with
// 16 channels, 1.2 to 1.35 and 1.65 to 1.9 with 32. Fetching the next positions' weights ahead: nothing. By
// class of layer beside the direct kernel: benchmarks/results/dense.md.
//
// Weights: (filter blocks, positions, C, V lanes). Order of additions: channels, one chain; then the
// transform.
#pragma once
#include "network/convolution.h"
#include "winograd/transforms.h"

namespace jsc::network {

struct WinogradFields {
    Map x, out;
    int64_t Ph, Pw;
    int64_t mv, mh;  // outputs of a tile, down and across
    int64_t vectors;  // V
    int64_t tiles;  // of a task
    uint64_t weight;
    uint64_t plain;  // (vectors of filters, 3, 3, C, lanes): as they are
    Epilogue epilogue;
};

// T: the numbers of the output and of the residual.
template <class T>
struct WinogradKernel {
    // Are these n vectors finite? 0 x is zero for each finite x.
    template <class F> JSC_INLINE bool finite(const float *y, int n) {
        F probe{};
        for (int i = 0; i < n; i++) probe += load<F>(y + i * (int)(sizeof(F) / 4)) * 0.f;
        return !nonzero_mask<F>(probe);
    }
    // The outputs of one tile for one vector of filters, without transforms.
    template <class F, int mv, int mh, class X>
    JSC_INLINE void directly(const WinogradFields &f, const X *image, int64_t y0, int64_t x0, int64_t k,
                             float *y) {
        constexpr int L = sizeof(F) / 4;
        const int64_t C = f.x.C;
        for (int i = 0; i < mv; i++)
            for (int j = 0; j < mh; j++) {
                F sum{};
                for (int u = 0; u < 3; u++)
                    for (int s = 0; s < 3; s++) {
                        const int64_t h = y0 + i + u - f.Ph, w = x0 + j + s - f.Pw;
                        if (h < 0 || h >= f.x.H || w < 0 || w >= f.x.W) continue;
                        const X *x = image + h * f.x.row + w * f.x.pixel;
                        const float *weight = constant(f.plain) + ((k / L * 3 + u) * 3 + s) * C * L;
                        for (int64_t c = 0; c < C; c++)
                            sum += load_numbers<One>(x + c)[0] * load<F>(weight + c * L);
                    }
                store(y + (i * mh + j) * L, sum);
            }
    }

    // sums[tile, filters] of one position: products over channels of up to P tiles with a block of filters.
    template <class I, int V>
    JSC_INLINE void multiply(const float *x, const float *weight, int64_t C, int64_t tiles, float *sums) {
        constexpr int P = tile_pixels<I>(V), L = lanes<I, float>;
        using F = Vec<I, float>;
        for (int64_t first = 0; first < tiles; first += P) {
            const float *from[P];
            F sum[P][V];
#pragma GCC unroll 16
            for (int p = 0; p < P; p++) {
                from[p] = x + std::min(first + p, tiles - 1) * C;
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) sum[p][v] = F{};
            }
            const float *w = weight;
            for (int64_t c = 0; c < C; c++, w += V * L) {
                F filter[V];
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) filter[v] = load<F>(w + v * L);
#pragma GCC unroll 16
                for (int p = 0; p < P; p++) {
                    F number = from[p][c] - F{};
                    if constexpr (V > 1) keep_in_register(number);
#pragma GCC unroll 4
                    for (int v = 0; v < V; v++) sum[p][v] += number * filter[v];
                }
            }
#pragma GCC unroll 16
            for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) store(sums + ((first + p) * V + v) * L, sum[p][v]);
        }
    }

    template <class I, int V, int mv, int mh>
    JSC_INLINE void block(const WinogradFields &f, const Call &call, int64_t first, int64_t tiles, int64_t k0,
                          const float *weight, const float *input, float *sums) {
        constexpr int L = lanes<I, float>, positions = (mv + 2) * (mh + 2), P = tile_pixels<I>(V);
        using F = Vec<I, float>;
        const int64_t C = f.x.C, across = ceil_div(f.out.W, mh), down = ceil_div(f.out.H, mv);
        const int64_t step = ceil_div(f.tiles, P) * P * V * L;
        for (int p = 0; p < positions; p++)
            multiply<I, V>(input + p * f.tiles * C, weight + p * C * V * L, C, tiles, sums + p * step);
        const Epilogue &e = f.epilogue;
        int64_t tw = first % across, th = first / across % down, n = first / across / down;
        for (int64_t t = 0; t < tiles; t++) {
            const int64_t y0 = th * mv, x0 = tw * mh, rows = std::min<int64_t>(mv, f.out.H - y0),
                          columns = std::min<int64_t>(mh, f.out.W - x0);
            T *out = at<T>(f.out, call, n, y0, x0) + k0;
            const T *residual = e.has_residual ? at<T>(e.residual, call, n, y0, x0) + k0 : nullptr;
            for (int v = 0; v < V; v++) {
                alignas(64) float y[mv * mh * L];
                transform_output<F, mv, mh>(sums + (t * V + v) * L, step, y);
                const int64_t k = v * L;
                if (!finite<F>(y, mv * mh)) {
                    if (sizeof(F) == 64 && f.x.bf16)
                        directly<F, mv, mh>(f, at<uint16_t>(f.x, call, n), y0, x0, k0 + k, y);
                    else directly<F, mv, mh>(f, at(f.x, call, n), y0, x0, k0 + k, y);
                }
                const int left = (int)std::min<int64_t>(L, f.out.C - k0 - k);
                if (left == L && quick(e)) {
                    const auto last = QuickEpilogue<sizeof(F)>::of(e, k0 + k);
                    for (int64_t i = 0; i < rows; i++)
                        for (int64_t j = 0; j < columns; j++) {
                            const int64_t from = i * e.residual.row + j * e.residual.pixel + k;
                            const T *more = e.has_residual ? residual + from : nullptr;
                            store_numbers(out + i * f.out.row + j * f.out.pixel + k,
                                          last(load<F>(y + (i * mh + j) * L), more));
                        }
                    continue;
                }
                for (int64_t i = 0; i < rows; i++)
                    for (int64_t j = 0; j < columns; j++) {
                        T *to = out + i * f.out.row + j * f.out.pixel + k;
                        const T *more = residual + i * e.residual.row + j * e.residual.pixel + k;
                        const F value = load<F>(y + (i * mh + j) * L);
                        if (left == L) store_numbers(to, finish<F>(value, e, k0 + k, more));
                        else store_partial_numbers(to, finish_partial<F>(value, e, k0 + k, more, left), left);
                    }
            }
            if (++tw == across) {
                tw = 0;
                if (++th == down) th = 0, n++;
            }
        }
    }

    // The input's tiles; X: its numbers.
    template <class I, int mv, int mh, class X>
    JSC_INLINE void transform(const WinogradFields &f, const Call &call, int64_t first, int64_t tiles,
                              float *input) {
        using F = Vec<I, float>;
        constexpr int L = lanes<I, float>, nv = mv + 2, nh = mh + 2;
        const int64_t C = f.x.C, across = ceil_div(f.out.W, mh), down = ceil_div(f.out.H, mv);
        int64_t tw = first % across, th = first / across % down, n = first / across / down;
        for (int64_t t = 0; t < tiles; t++) {
            const int64_t iy = th * mv - f.Ph, ix = tw * mh - f.Pw;
            const Whole<X> whole{at<X>(f.x, call, n, iy, ix), f.x.row, f.x.pixel};
            const Clipped<X> clipped{whole, -iy, -ix, f.x.H - iy, f.x.W - ix};
            const bool inside = iy >= 0 && iy + nv <= f.x.H && ix >= 0 && ix + nh <= f.x.W;
            float *to = input + t * C;
            int64_t c = 0;
            if (inside)
                for (; c + L <= C; c += L) transform_input<F, mv, mh>(whole, c, to, f.tiles * C);
            for (; c + L <= C; c += L) transform_input<F, mv, mh>(clipped, c, to, f.tiles * C);
            for (; c < C; c++) transform_input<One, mv, mh>(clipped, c, to, f.tiles * C);
            if (++tw == across) {
                tw = 0;
                if (++th == down) th = 0, n++;
            }
        }
    }

    template <class I, int mv, int mh>
    JSC_INLINE void task(const WinogradFields &f, const Call &call, int64_t first, int64_t tiles) {
        constexpr int L = lanes<I, float>, positions = (mv + 2) * (mh + 2);
        const int64_t C = f.x.C, K = f.out.C;
        float *input = (float *)call.scratch, *sums = input + ceil_div(positions * f.tiles * C, 16) * 16;
        if (I::bytes == 64 && f.x.bf16) transform<I, mv, mh, uint16_t>(f, call, first, tiles, input);
        else transform<I, mv, mh, float>(f, call, first, tiles, input);
        const int64_t width = f.vectors * L;
        const float *weight = constant(f.weight);
        for (int64_t k0 = 0; k0 < K; k0 += width) {
            const int64_t vectors = std::min(f.vectors, ceil_div(K - k0, L));
            switch (vectors) {
            case 1: block<I, 1, mv, mh>(f, call, first, tiles, k0, weight, input, sums); break;
            case 2: block<I, 2, mv, mh>(f, call, first, tiles, k0, weight, input, sums); break;
            case 3: block<I, 3, mv, mh>(f, call, first, tiles, k0, weight, input, sums); break;
            default:
                if constexpr (I::bytes == 64)
                    block<I, 4, mv, mh>(f, call, first, tiles, k0, weight, input, sums);
            }
            weight += positions * C * vectors * L;
        }
    }
    template <class I>
    JSC_INLINE void run(const WinogradFields *f, int64_t first, int64_t tiles, const Call *call) {
        if (f->mv == 4) task<I, 4, 4>(*f, *call, first, tiles);
        else if (f->mh == 4) task<I, 2, 4>(*f, *call, first, tiles);
        else task<I, 2, 2>(*f, *call, first, tiles);
    }
};

struct Winograd final : Instruction {
    WinogradFields f;
    int64_t total, lanes_;
    Winograd(const WinogradFields &fields, int64_t lanes) : f(fields), lanes_(lanes) {
        total = f.out.N * ceil_div(f.out.H, f.mv) * ceil_div(f.out.W, f.mh);
    }
    int64_t tasks(int64_t) const override { return ceil_div(total, f.tiles); }
    int64_t scratch_bytes() const override {
        const int64_t positions = (f.mv + 2) * (f.mh + 2);
        return 4 * (positions * f.tiles * f.x.C + 16 + positions * (f.tiles + 12) * f.vectors * lanes_);
    }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t first = task * f.tiles;
        const int64_t tiles = std::min(f.tiles, total - first);
        dispatch_maps<WinogradKernel>(isa, f.out, &f, first, tiles, &call);
    }
};

}  // namespace jsc::network
