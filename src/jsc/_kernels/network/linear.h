// Linear layer of few rows:  out[n, k] = act(sum(i) w[k, i] x[n, i] + shift[k]).
//
// The weight is read once, in torch's own order (K, inputs): with one row that is all there is to do, at the
// speed of memory. Eight filters of one row, or four of two, are summed up together, each in one vector of
// partial sums: lane l has the products i = l, l + L, ... The lanes are added up at the end, halves onto
// halves.
//
// With more rows than fit the caches, `inputs` are cut into chunks: a chunk of all rows stays in the second
// cache while the task's filters go past, and the partial sums wait in the thread's scratch. Each sum is the
// same chain of additions whatever the chunk, the number of rows and the number of threads.
//
// At the precision "bf16" the weights are bfloat16, which are half the bytes, and widened to float32 in
// registers, a shift, on any CPU; x keeps its 24 bits.
#pragma once
#include "network/channels.h"

namespace jsc::network {

struct LinearFields {
    Map x, out;  // x is dense and in the weights' order: an image is C H W numbers
    int64_t inputs;
    int64_t bf16;  // whether the weights are bfloat16
    uint64_t weight, shift;
    Activation act;
};

// Number: of the weights, float or bfloat16 (uint16_t).
template <class Number>
struct LinearKernel {
    // Adds the products of inputs i, ..., end - 1 to the sums of K filters and N rows, which lie K_step and
    // one vector apart; numbers behind the last full vector go to the first lanes.
    template <class I, int K, int N>
    JSC_INLINE void block(const LinearFields &f, const Call &call, int64_t n, int64_t k, int64_t i,
                          int64_t end, float *sums, int64_t K_step) {
        using F = Vec<I, float>;
        constexpr int L = lanes<I, float>;
        const float *x[N];
        const Number *w[K];
        F sum[K][N];
#pragma GCC unroll 8
        for (int a = 0; a < K; a++) {
            w[a] = constant<Number>(f.weight) + (k + a) * f.inputs;
#pragma GCC unroll 2
            for (int b = 0; b < N; b++) sum[a][b] = i ? load<F>(sums + a * K_step + b * L) : F{};
        }
#pragma GCC unroll 2
        for (int b = 0; b < N; b++) x[b] = at(f.x, call, n + b);
        const int64_t ahead = 8 * f.inputs;  // the next filters: hardware fetches ahead within a page only
        for (; i + L <= end; i += L) {
            F number[N];
#pragma GCC unroll 2
            for (int b = 0; b < N; b++) number[b] = load<F>(x[b] + i);
#pragma GCC unroll 8
            for (int a = 0; a < K; a++) {
                const F weight = load_numbers<F>(w[a] + i);
                __builtin_prefetch(w[a] + i + ahead, 0, 2);
#pragma GCC unroll 2
                for (int b = 0; b < N; b++) sum[a][b] += weight * number[b];
            }
        }
#pragma GCC unroll 8
        for (int a = 0; a < K; a++)
#pragma GCC unroll 2
            for (int b = 0; b < N; b++) {
                float *to = sums + a * K_step + b * L;
                store(to, sum[a][b]);
                for (int64_t j = i; j < end; j++) to[j - i] += load_numbers<One>(w[a] + j)[0] * x[b][j];
            }
    }
    template <class I, int K>
    JSC_INLINE void filters(const LinearFields &f, const Call &call, int64_t k, int64_t i, int64_t end,
                            float *sums) {
        constexpr int L = lanes<I, float>;
        const int64_t step = f.x.N * L;
        int64_t n = 0;
        for (; n + 2 <= f.x.N; n += 2) {
            block<I, (K > 4 ? 4 : K), 2>(f, call, n, k, i, end, sums + n * L, step);
            if constexpr (K > 4) block<I, 4, 2>(f, call, n, k + 4, i, end, sums + 4 * step + n * L, step);
        }
        if (n < f.x.N) block<I, K, 1>(f, call, n, k, i, end, sums + n * L, step);
    }
    template <class I>
    JSC_INLINE void run(const LinearFields *fields, int64_t first, int64_t k_end, int64_t chunk,
                        const Call *call) {
        const LinearFields &f = *fields;
        constexpr int L = lanes<I, float>;
        float *sums = (float *)call->scratch;
        int64_t i = 0;
        do {
            const int64_t end = std::min(f.inputs, i + chunk);
            int64_t k = first;
            float *at_k = sums;
            for (; k + 8 <= k_end; k += 8, at_k += 8 * f.x.N * L) filters<I, 8>(f, *call, k, i, end, at_k);
            for (; k < k_end; k++, at_k += f.x.N * L) filters<I, 1>(f, *call, k, i, end, at_k);
            i = end;
        } while (i < f.inputs);
        for (int64_t n = 0; n < f.x.N; n++) {
            float *out = at(f.out, *call, n);
            for (int64_t k = first; k < k_end; k++) {
                float *part = sums + ((k - first) * f.x.N + n) * L;
                for (int width = L / 2; width; width /= 2)
                    for (int l = 0; l < width; l++) part[l] += part[l + width];
                out[k] = part[0] + (f.shift ? constant(f.shift)[k] : 0.f);
            }
            if (f.act.kind) activate_numbers<I>(out + first, out + first, k_end - first, f.act);
        }
    }
};

struct Linear final : Instruction {
    LinearFields f;
    int64_t step, chunk;  // filters of a task, inputs of a chunk
    explicit Linear(const LinearFields &fields) : f(fields) {
        const int64_t cost = std::max<int64_t>(1, f.inputs * std::min<int64_t>(f.x.N, 8));
        step = std::max<int64_t>(8, std::min<int64_t>(128, 4 * band_floats / cost / 8 * 8));
        // A chunk of the rows is at most 256 KiB, and then worth several filter blocks.
        chunk = std::max<int64_t>(256, 65536 / std::max<int64_t>(1, f.x.N) / 64 * 64);
        if (chunk < f.inputs) step = std::max<int64_t>(step, std::min<int64_t>(64, f.out.C / 16 / 8 * 8));
    }
    int64_t tasks(int64_t) const override { return ceil_div(f.out.C, step); }
    int64_t scratch_bytes() const override { return step * f.x.N * 64; }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t first = task * step, end = std::min(f.out.C, first + step);
        if (f.bf16) dispatch<LinearKernel<uint16_t>>(isa, &f, first, end, chunk, &call);
        else dispatch<LinearKernel<float>>(isa, &f, first, end, chunk, &call);
    }
};

}  // namespace jsc::network
