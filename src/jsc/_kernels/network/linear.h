// Linear layer of few rows:  out[n, k] = act(sum(i) w[k, i] x[n, i] + shift[k]).
//
// The weight is read once, in torch's own order (K, inputs): with one row that is all there is to do, at
// the speed of memory. Eight filters (of one row) or four (of two rows) are summed up together, each in one
// vector of partial sums, which are added up lane by lane at the end: an order that no batch and no number
// of threads changes.
#pragma once
#include "network/activation.h"

namespace jsc::network {

struct LinearFields {
    Map x, out;  // x is dense: an image is H W C numbers
    int64_t inputs;
    uint64_t weight, shift;
    Activation act;
};

struct LinearKernel {
    template <class I, int K, int N>
    JSC_INLINE void block(const LinearFields &f, const Call &call, int64_t n, int64_t k) {
        using F = Vec<I, float>;
        typedef float One __attribute__((vector_size(4)));
        constexpr int L = lanes<I, float>;
        const float *x[N], *w[K];
        F sum[K][N];
#pragma GCC unroll 8
        for (int a = 0; a < K; a++) {
            w[a] = constant(f.weight) + (k + a) * f.inputs;
#pragma GCC unroll 2
            for (int b = 0; b < N; b++) sum[a][b] = F{};
        }
#pragma GCC unroll 2
        for (int b = 0; b < N; b++) x[b] = at(f.x, call, n + b);
        int64_t i = 0;
        for (; i + L <= f.inputs; i += L) {
            F number[N];
#pragma GCC unroll 2
            for (int b = 0; b < N; b++) number[b] = load<F>(x[b] + i);
#pragma GCC unroll 8
            for (int a = 0; a < K; a++) {
                const F weight = load<F>(w[a] + i);
#pragma GCC unroll 2
                for (int b = 0; b < N; b++) sum[a][b] += weight * number[b];
            }
        }
        for (int a = 0; a < K; a++)
            for (int b = 0; b < N; b++) {
                alignas(64) float part[L];
                store(part, sum[a][b]);
                for (int64_t j = i; j < f.inputs; j++) part[j - i] += w[a][j] * x[b][j];
                for (int width = L / 2; width; width /= 2)
                    for (int l = 0; l < width; l++) part[l] += part[l + width];
                One total = {part[0] + (f.shift ? constant(f.shift)[k + a] : 0.f)};
                total = activate<One>(total, f.act);
                at(f.out, call, n + b)[k + a] = total[0];
            }
    }
    template <class I>
    JSC_INLINE void run(const LinearFields *fields, int64_t k, int64_t k_end, const Call *call) {
        const LinearFields &f = *fields;
        for (; k < k_end; k += 8) {
            int64_t n = 0;
            if (k + 8 <= k_end) {
                for (; n + 2 <= f.x.N; n += 2) {
                    block<I, 4, 2>(f, *call, n, k);
                    block<I, 4, 2>(f, *call, n, k + 4);
                }
                for (; n < f.x.N; n++) block<I, 8, 1>(f, *call, n, k);
            } else {
                for (; n < f.x.N; n++)
                    for (int64_t a = k; a < k_end; a++) block<I, 1, 1>(f, *call, n, a);
            }
        }
    }
};

struct Linear final : Instruction {
    LinearFields f;
    int64_t step;  // filters of a task
    explicit Linear(const LinearFields &fields) : f(fields) {
        const int64_t cost = std::max<int64_t>(1, f.inputs * std::min<int64_t>(f.x.N, 8));
        step = std::max<int64_t>(8, std::min<int64_t>(1024, 4 * band_floats / cost / 8 * 8));
    }
    int64_t tasks(int64_t) const override { return ceil_div(f.out.C, step); }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        dispatch<LinearKernel>(isa, &f, task * step, std::min(f.out.C, (task + 1) * step), &call);
    }
};

}  // namespace jsc::network
