// Direct convolution of channels-last maps: any kernel, stride, padding, dilation and groups.
//
//   out[n, y, x, k] = act(sum(u, v, c) w[k, c, u, v] in[n, Sh y + Dh u - Ph, Sw x + Dw v - Pw, c]
//                         + shift[k] + residual[n, y, x, k])
//
// Tile: P output pixels by V vectors of filters, all sums in registers. For each channel, V vectors of
// weights are loaded and each pixel's number is broadcast to them: P V multiply-adds for P + V loads. The
// pixels of a tile are any consecutive ones of a band of rows; each has its own pointer, which goes to a
// line of zeros where the kernel hangs over the border, so that a 7 x 7 map fills tiles as well as a large
// one does.
//
// Loops: filter blocks, chunks of channels, tiles, kernel rows and columns, channels. A chunk's weights
// (`chunk` channels of all taps) stay in the first or second cache while the tiles of the band go past;
// between chunks the sums wait in the thread's scratch. Where a block's weights fit there whole, the tiles
// are the outer loop instead (`tiles_first`): each tile's place is worked out once.
//
// While tiles go past a chunk's weights, the lines of the next chunk's are fetched into the second cache:
// the hardware fetches ahead within a page only. On one thread of an AMD EPYC with AVX-512, whole networks
// (this one, pointwise.h, linear.h and cpc/sweep.h together; the loops of tiles of one row too):
// MobileNetV2 1.04, RegNet 1.04, SqueezeNet 1.05, ShuffleNetV2 1.03, EfficientNet 1.02, ResNet-50 1.02,
// GoogLeNet 1.01, ResNet-18 1.00 times as fast. Tried and dropped: the same for the positions of winograd.h
// (nothing), and for kernel rows of cpc's 3 x 3 (ResNet-18 1 % slower).
//
// Weights: for each group, block of V vectors of filters, chunk: (Kh, Kw, chunk, V lanes). The last block
// has as many vectors as are left; its last vector are the group's last filters, so that it is whole, and
// what it shares with the one before is computed twice. Of fewer filters than lanes the missing ones are
// zero.
//
// Order of additions: u, v, c within a chunk from zero, one chain of multiply-adds; then the chunks' sums,
// in order; whatever the tiling. The error of a chain grows with its length: one chain over 768 channels of
// a 1 x 1 convolution had 3.4 times the largest error of torch's float32, over 3072 channels 8.1 times, and
// in chunks of 256 it has 1.2 and 1.1 times. Taps that hang over add nothing (they are 0 w where a tile's
// neighbour needs them).
#pragma once
#include "network/pixel_tile.h"
#include "network/pointwise.h"

namespace jsc::network {

// What a task does: rows of an image, and filter blocks.
struct Share {
    int64_t n, y0, pixels, first_block;
    JSC_INLINE int64_t parts_of(const ConvolutionFields &f, int64_t lanes) {
        return ceil_div(f.groups * ceil_div(f.out.C / f.groups, f.vectors * lanes), f.task_blocks);
    }
    Share(const ConvolutionFields &f, int64_t task, int64_t lanes) {
        const int64_t bands = ceil_div(f.out.H, f.band_rows), parts = parts_of(f, lanes);
        n = task / parts / bands;
        y0 = task / parts % bands * f.band_rows;
        pixels = std::min(f.band_rows, f.out.H - y0) * f.out.W;
        first_block = task % parts * f.task_blocks;
    }
};

// A filter block of one task: filters k0 to K_end at most, weights of all its chunks.
template <class T>
struct Block {
    int64_t k0, K_end;
    const float *weight;
    const float *x;
    T *out;
    const T *residual;
};

// Blocks of V vectors. T: the numbers of the output and of the residual.
template <int V, Numbers N, class T>
struct BlockKernel {
    // Channels c0, ... of a tile; `sums` has those of the channels before, and takes them if more follow.
    // Of each channel's weights a line is fetched that lies `ahead` bytes further on.
    template <class I>
    JSC_INLINE void tile(const ConvolutionFields &f, const Tile<tile_pixels<I>(V)> &t, const Block<T> &b,
                         const float *weight, int64_t c0, int64_t channels, float *sums, int64_t ahead = 0) {
        constexpr int P = tile_pixels<I>(V), L = lanes<I, float>;
        using F = Vec<I, float>;
        const float *origin[P];
#pragma GCC unroll 16
        for (int p = 0; p < P; p++) origin[p] = b.x + c0 + t.x[p];
        const bool stores = c0 + channels == f.x.C / f.groups;
        const int64_t filters = std::min<int64_t>(V * L, b.K_end - b.k0);
        const int64_t last = filters == V * L ? (V - 1) * L : filters - L;  // where the last vector begins
        if (stores) {
            // The caches fetch ahead along a line of memory, and these are P lines far apart.
#pragma GCC unroll 16
            for (int p = 0; p < P; p++) __builtin_prefetch(b.out + t.out[p]);
            if (f.epilogue.has_residual)
#pragma GCC unroll 16
                for (int p = 0; p < P; p++) __builtin_prefetch(b.residual + t.residual[p]);
        }
        F sum[P][V];
#pragma GCC unroll 16
        for (int p = 0; p < P; p++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) sum[p][v] = F{};
        for (int64_t u = 0; u < f.Kh; u++)
            for (int64_t s = 0; s < f.Kw; s++, weight += channels * V * L) {
                const float *from[P];
                const int64_t step = u * f.Dh * f.x.row + s * f.Dw * f.x.pixel;
                if (t.inside) {
#pragma GCC unroll 16
                    for (int p = 0; p < P; p++) from[p] = origin[p] + step;
                } else {
                    bool any = false;
                    for (int p = 0; p < P; p++) {
                        const int64_t y = t.iy[p] + u * f.Dh, x = t.ix[p] + s * f.Dw;
                        const bool there = y >= 0 && y < f.x.H && x >= 0 && x < f.x.W;
                        from[p] = there ? origin[p] + step : zeros;
                        any |= there;
                    }
                    if (!any) continue;
                }
                const float *w = weight;
                for (int64_t c = 0; c < channels; c++, w += V * L) {
                    F filter[V];
                    __builtin_prefetch((const char *)w + ahead, 0, 2);
#pragma GCC unroll 4
                    for (int v = 0; v < V; v++) filter[v] = load<F>(w + v * L);
#pragma GCC unroll 16
                    for (int p = 0; p < P; p++) {
                        F number;  // a broadcast: x - 0 is x for each x
                        if constexpr (N == Numbers::floats) number = from[p][c] - F{};
                        else number = broadcast_pair(from[p] + c);
                        keep_in_register(number);
#pragma GCC unroll 4
                        for (int v = 0; v < V; v++)
                            if constexpr (N == Numbers::floats) sum[p][v] += number * filter[v];
                            else sum[p][v] = add_pair_products(sum[p][v], number, filter[v]);
                    }
                }
            }
        if (c0)
#pragma GCC unroll 16
            for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) sum[p][v] += load<F>(sums + p * V * L + v * L);
        if (!stores) {
#pragma GCC unroll 16
            for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) store(sums + p * V * L + v * L, sum[p][v]);
            return;
        }
        const Epilogue &e = f.epilogue;
        if (f.out.C / f.groups >= L) {
            // In registers; pixels beyond the tile's end store the last one again.
            if (e.shift)
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) {
                    const F shift = load<F>(constant(e.shift) + b.k0 + (v == V - 1 ? last : v * L));
#pragma GCC unroll 16
                    for (int p = 0; p < P; p++) sum[p][v] += shift;
                }
            if (e.has_residual)
#pragma GCC unroll 16
                for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                    for (int v = 0; v < V; v++)
                        sum[p][v] +=
                            load_numbers<F>(b.residual + t.residual[p] + (v == V - 1 ? last : v * L));
            activate_pixels<F, P, V>(e.act, sum);
#pragma GCC unroll 16
            for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                for (int v = 0; v < V; v++)
                    store_numbers(b.out + t.out[p] + (v == V - 1 ? last : v * L), sum[p][v]);
            return;
        }
        // Fewer filters than lanes: one vector, through memory.
        alignas(64) float line[P * L];
#pragma GCC unroll 16
        for (int p = 0; p < P; p++) store(line + p * L, sum[p][0]);
        for (int64_t p = 0; p < t.count; p++) {
            const T *more = b.residual + t.residual[p];
            const F value = finish_partial<F>(load<F>(line + p * L), e, b.k0, more, (int)filters);
            store_partial_numbers(b.out + t.out[p], value, (int)filters);
        }
    }

    template <class I>
    JSC_INLINE void chunks(const ConvolutionFields &f, const Block<T> &b, int64_t y0, int64_t pixels,
                           float *sums) {
        constexpr int P = tile_pixels<I>(V), L = lanes<I, float>;
        const int64_t Cg = f.x.C / f.groups;
        const float *weight = b.weight;
        for (int64_t c0 = 0; c0 < Cg; c0 += f.chunk) {
            const int64_t channels = std::min(f.chunk, Cg - c0), numbers = channels * f.Kh * f.Kw * V * L;
            // While tiles go past a chunk, the next one comes from memory, every V-th line for each tile.
            for (int64_t first = 0, line = 0; first < pixels; first += P, line = line + 1 < V ? line + 1 : 0)
                tile<I>(f, Tile<P>::place(f, y0, first, pixels), b, weight, c0, channels,
                        sums + first * V * L, 4 * (numbers + line * L));
            weight += numbers;
        }
    }

    // A tile's pixels stay in the first cache while `count` blocks of V vectors go past.
    template <class I>
    JSC_INLINE void tiles(const ConvolutionFields &f, const Block<T> &first_block, int64_t count, int64_t y0,
                          int64_t pixels) {
        constexpr int P = tile_pixels<I>(V), L = lanes<I, float>;
        const int64_t Cg = f.x.C / f.groups;
        alignas(64) float sums[P * V * L];
        for (int64_t first = 0; first < pixels; first += P) {
            const Tile<P> t = Tile<P>::place(f, y0, first, pixels);
            Block<T> b = first_block;
            for (int64_t i = 0; i < count; i++) {
                for (int64_t c0 = 0; c0 < Cg; c0 += f.chunk) {
                    const int64_t channels = std::min(f.chunk, Cg - c0);
                    tile<I>(f, t, b, b.weight, c0, channels, sums);
                    b.weight += channels * f.Kh * f.Kw * V * L;
                }
                b.k0 += V * L;
                b.out += V * L;
                if (b.residual) b.residual += V * L;
            }
        }
    }

    template <class I>
    JSC_INLINE void run(const ConvolutionFields *f, const Block<T> *b, int64_t count, int64_t y0,
                        int64_t pixels, float *sums) {
        if (f->tiles_first) tiles<I>(*f, *b, count, y0, pixels);
        else chunks<I>(*f, *b, y0, pixels, sums);
    }
};

template <Numbers N, class T = float>
struct ConvolutionKernel {
    // A 1 x 1 kernel at stride 1 whose maps have no gap between rows: all pixels are one step apart.
    JSC_INLINE bool is_pointwise(const ConvolutionFields &f) {
        const Map &r = f.epilogue.residual;
        return f.Kh == 1 && f.Kw == 1 && f.Sh == 1 && f.Sw == 1 && f.Ph == 0 && f.Pw == 0 &&
               f.x.row == f.x.W * f.x.pixel && f.out.row == f.out.W * f.out.pixel && f.x.W == f.out.W &&
               f.x.H == f.out.H && (!f.epilogue.has_residual || r.row == r.W * r.pixel);
    }
    // `count` blocks of V vectors, in a function of its own.
    template <class I, int V>
    JSC_INLINE void blocks_of(const ConvolutionFields &f, const Block<T> &b, int64_t count, int64_t y0,
                              int64_t pixels, float *sums) {
        constexpr int P = tile_pixels<I>(V);
        if (pixels < P || !is_pointwise(f) || f.out.C / f.groups < lanes<I, float> || !f.tiles_first)
            return call_apart<I, BlockKernel<V, N, T>>(&f, &b, count, y0, pixels, sums);
        const Pointwise p{f.x.C / f.groups, f.chunk, f.x.pixel, f.out.pixel, b.K_end, &f.epilogue};
        const T *residual = b.residual ? b.residual + y0 * f.epilogue.residual.row : nullptr;
        call_apart<I, PointwiseKernel<P, V, N, T>>(&p, b.x + y0 * f.x.row, b.weight, b.k0,
                                                   b.out + y0 * f.out.row, residual, pixels, count);
    }

    template <class I>
    JSC_INLINE void run(const ConvolutionFields *f, int64_t task, const Call *call) {
        const Share part(*f, task, lanes<I, float>);
        filter_blocks<I>(*f, *call, part, at(f->x, *call, part.n), (float *)call->scratch);
    }

    // The filter blocks of a part; `x` is the image.
    template <class I>
    JSC_INLINE void filter_blocks(const ConvolutionFields &f, const Call &call, const Share &part,
                                  const float *x, float *sums) {
        constexpr int L = lanes<I, float>;
        const int64_t K = f.out.C / f.groups, C = f.x.C / f.groups, width = f.vectors * L;
        const int64_t blocks = ceil_div(K, width), n = part.n, y0 = part.y0, pixels = part.pixels;
        const int64_t group_floats = C * f.Kh * f.Kw * ceil_div(K, L) * L;
        int64_t i = part.first_block;
        const int64_t stop = std::min(i + f.task_blocks, f.groups * blocks);
        while (i < stop) {
            const int64_t group = i / blocks, index = i % blocks, k0 = group * K + index * width;
            Block<T> b{k0,
                       (group + 1) * K,
                       constant(f.weight) + group * group_floats + index * C * f.Kh * f.Kw * width,
                       x + group * C,
                       at<T>(f.out, call, n) + k0,
                       nullptr};
            if (f.epilogue.has_residual) b.residual = at<T>(f.epilogue.residual, call, n) + k0;
            const int64_t vectors = std::min(f.vectors, ceil_div(b.K_end - k0, L));
            // Blocks of the same number of vectors that a tile can go through together.
            const bool together = f.tiles_first == 2 && f.groups == 1;
            const int64_t count = together && vectors == f.vectors
                                      ? std::min(stop - i, std::max<int64_t>(1, (K - k0 + L - 1) / width))
                                      : 1;
            switch (vectors) {
            case 1: blocks_of<I, 1>(f, b, count, y0, pixels, sums); break;
            case 2: blocks_of<I, 2>(f, b, count, y0, pixels, sums); break;
            case 3: blocks_of<I, 3>(f, b, count, y0, pixels, sums); break;
            default:
                if constexpr (I::bytes == 64) blocks_of<I, 4>(f, b, count, y0, pixels, sums);
            }
            i += count;
        }
    }
};

struct Convolution final : Instruction {
    ConvolutionFields f;
    int64_t lanes_;
    Convolution(const ConvolutionFields &fields, int64_t lanes) : f(fields), lanes_(lanes) {}
    int64_t tasks(int64_t) const override {
        return f.out.N * ceil_div(f.out.H, f.band_rows) * Share::parts_of(f, lanes_);
    }
    int64_t scratch_bytes() const override {
        // The last tile may reach up to 11 pixels beyond the band.
        const bool chunks = !f.tiles_first && f.chunk < f.x.C / f.groups;
        return chunks ? 4 * (f.band_rows * f.out.W + 12) * f.vectors * lanes_ : 0;
    }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        dispatch<ConvolutionKernel<Numbers::floats>>(isa, &f, task, &call);
    }
};

}  // namespace jsc::network
