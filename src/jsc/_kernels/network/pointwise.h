// 1 x 1 convolution of stride 1, a task's part: tiles of P pixels that lie one step of memory apart, V
// vectors of filters, all channels.
//
//   out[p, k] = act(sum(c) w[k, c] in[p, c] + shift[k] + residual[p, k])
//
// It is what convolution.h does, without the work for each tile that a kernel of several taps needs: where
// channels are few, that took more time than the multiply-adds. Three pixels share a pointer, so that all
// addresses stay in registers.
//
// Weights: for each chunk of channels (channel, V lanes). Order of additions: the channels of a chunk from
// zero, one chain of multiply-adds; then the chunks' sums, in order.
#pragma once
#include "network/activation.h"
#include "simd/bfloat16.h"

namespace jsc::network {

struct Pointwise {
    int64_t C, chunk;
    int64_t pixel, out_pixel;  // steps
    int64_t K_end;  // of the group's filters
    const Epilogue *epilogue;
};

// Numbers that a kernel multiplies: float32, or pairs of bfloat16 (direct_bf16.h).
enum class Numbers { floats, pairs };

// T: the numbers of the output and of the residual.
template <int P, int V, Numbers N, class T>
struct PointwiseKernel {
    template <class F>
    JSC_INLINE void tile(const Pointwise &f, const float *x, const float *weight, int64_t k, T *out,
                         const T *residual, int64_t ahead) {
        constexpr int L = sizeof(F) / 4, B = (P + 2) / 3;
        const Epilogue &e = *f.epilogue;
        {
            // The caches fetch ahead along a line of memory, and these are P lines far apart.
            const T *to = out;
#pragma GCC unroll 16
            for (int p = 0; p < P; p++, to += f.out_pixel) __builtin_prefetch(to);
            const T *more = residual;
            if (residual)
#pragma GCC unroll 16
                for (int p = 0; p < P; p++, more += e.residual.pixel) __builtin_prefetch(more);
        }
        F sum[P][V];
        alignas(64) float sums[P * V * L];
        const int64_t pixel = f.pixel;
        int64_t c0 = 0;
        do {
            const float *from[B];
#pragma GCC unroll 4
            for (int b = 0; b < B; b++) from[b] = x + c0 + 3 * b * pixel;
#pragma GCC unroll 16
            for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) sum[p][v] = F{};
            const float *end = weight + std::min(f.chunk, f.C - c0) * V * L;
            for (; weight < end; weight += V * L) {
                F filter[V];
                __builtin_prefetch((const char *)weight + ahead, 0, 2);
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) filter[v] = load<F>(weight + v * L);
#pragma GCC unroll 16
                for (int p = 0; p < P; p++) {
                    F number;  // a broadcast: x - 0 is x for each x
                    if constexpr (N == Numbers::floats) number = from[p / 3][p % 3 * pixel] - F{};
                    else number = broadcast_pair(from[p / 3] + p % 3 * pixel);
                    keep_in_register(number);
#pragma GCC unroll 4
                    for (int v = 0; v < V; v++)
                        if constexpr (N == Numbers::floats) sum[p][v] += number * filter[v];
                        else sum[p][v] = add_pair_products(sum[p][v], number, filter[v]);
                }
#pragma GCC unroll 4
                for (int b = 0; b < B; b++) {
                    from[b]++;
                    keep_in_register(from[b]);
                }
            }
            if (c0)
#pragma GCC unroll 16
                for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                    for (int v = 0; v < V; v++) sum[p][v] += load<F>(sums + (p * V + v) * L);
            if (c0 + f.chunk < f.C)
#pragma GCC unroll 16
                for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                    for (int v = 0; v < V; v++) store(sums + (p * V + v) * L, sum[p][v]);
            c0 += f.chunk;
        } while (c0 < f.C);
        const int64_t last = std::min<int64_t>((V - 1) * L, f.K_end - k - L);  // ends with the group
        finish_pixels<F, P, V, T>(e, sum, k, last, out, f.out_pixel, residual);
    }
    // `pixels` pixels by `blocks` blocks of V vectors from filter k on. The last tile begins earlier, so that
    // it is whole; a tile's pixels stay in the first cache while the blocks go past.
    template <class I>
    JSC_INLINE void run(const Pointwise *f, const float *x, const float *weight, int64_t k, T *out,
                        const T *residual, int64_t pixels, int64_t blocks) {
        constexpr int L = lanes<I, float>, width = V * L;
        // While tiles go past these blocks, the next ones come from memory, every V-th line for each tile.
        int64_t line = 0;
        for (int64_t next = 0; next < pixels; next += P, line = line + 1 < V ? line + 1 : 0) {
            const int64_t first = std::min(next, pixels - P);
            const float *from = x + first * f->pixel;
            T *to = out + first * f->out_pixel;
            const T *more = residual ? residual + first * f->epilogue->residual.pixel : nullptr;
            for (int64_t b = 0; b < blocks; b++)
                tile<Vec<I, float>>(*f, from, weight + b * f->C * width, k + b * width, to + b * width,
                                    more ? more + b * width : nullptr,
                                    4 * (blocks * f->C * width + line * L));
        }
    }
};

}  // namespace jsc::network
