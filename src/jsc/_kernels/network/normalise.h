// Normalisations over the channels of each pixel.
//
//   lrn        x[c] / (k + alpha / size sum(d) x[d]^2)^beta,  d from c - size / 2 to c + (size - 1) / 2
//   softmax    exp(x[c] - max) / sum exp(x - max)
//   layer      (x[c] - mean) / sqrt(variance + eps) weight[c] + shift[c]
//
// Channels lie side by side, so a window of LRN is `size` loads of one buffer of squares that has zeros on
// both sides. s^-3/4 is 1 / (sqrt(s) sqrt(sqrt(s))); other exponents go through libm's pow, number by
// number. exp below -80 counts as exp(-80). Sums are vectors of partial sums, added up lane by lane at the
// end. Source of LRN: A. Krizhevsky et al., 2012, 3.3, with torch's window and mean.
#pragma once
#include <cmath>

#include "network/activation.h"

namespace jsc::network {

enum NormaliseKind : int64_t { normalise_lrn, normalise_softmax, normalise_layer };

struct NormaliseFields {
    Map x, out;
    int64_t kind, size;
    double alpha, beta, k, eps;
    uint64_t weight, shift;
};

constexpr int64_t margin = 64;  // zeros before and behind the squares: windows up to 2 * 64

// Reductions: `add` takes a number in, `join` puts two results together.
struct Largest {
    static constexpr float start = -__builtin_inff();
    template <class V> JSC_INLINE V join(V a, V b) { return (a > b) | (a != a) ? a : b; }
    template <class V> JSC_INLINE V add(V a, V x) { return join<V>(a, x); }
};
struct Sum {
    static constexpr float start = 0.f;
    template <class V> JSC_INLINE V join(V a, V b) { return a + b; }
    template <class V> JSC_INLINE V add(V a, V x) { return a + x; }
};
struct SumOfSquares : Sum {
    template <class V> JSC_INLINE V add(V a, V x) { return a + x * x; }
};

struct NormaliseKernel {
    template <class F, class Op>
    JSC_INLINE float reduce(const float *x, int64_t C) {
        constexpr int L = sizeof(F) / 4;
        typedef float One __attribute__((vector_size(4)));
        F total = F{} + Op::start;
        int64_t c = 0;
        for (; c + L <= C; c += L) total = Op::template add<F>(total, load<F>(x + c));
        One rest = {Op::start};
        for (; c < C; c++) rest = Op::template add<One>(rest, load<One>(x + c));
        for (int l = 0; l < L; l++) rest = Op::template join<One>(rest, One{total[l]});
        return rest[0];
    }
    template <class I>
    JSC_INLINE void lrn(const NormaliseFields &f, const float *x, float *out, float *square) {
        using F = Vec<I, float>;
        constexpr int L = lanes<I, float>;
        const int64_t C = f.x.C;
        for (int64_t c = 0; c < C; c++) square[margin + c] = x[c] * x[c];
        for (int64_t c = C; c < C + margin; c++) square[margin + c] = 0.f;
        const float *first = square + margin - f.size / 2;
        const float factor = (float)(f.alpha / (double)f.size), k = (float)f.k;
        for (int64_t c = 0; c < C; c += L) {
            F s{};
            for (int64_t d = 0; d < f.size; d++) s += load<F>(first + c + d);
            alignas(64) float power[L];
            store(power, k + factor * s);
            if (f.beta == .75) {
                for (int l = 0; l < L; l++) {
                    const float root = __builtin_sqrtf(power[l]);
                    power[l] = 1.f / (root * __builtin_sqrtf(root));
                }
            } else {
                for (int l = 0; l < L; l++) power[l] = std::pow(power[l], (float)-f.beta);
            }
            const int left = (int)std::min<int64_t>(L, C - c);
            if (left == L) store(out + c, load<F>(x + c) * load<F>(power));
            else
                for (int l = 0; l < left; l++) out[c + l] = x[c + l] * power[l];
        }
    }
    template <class F>
    JSC_INLINE F exponential(F x) {
        F e = exp_negative<F>(x);
        return x == x ? e : x;
    }
    template <class I>
    JSC_INLINE void softmax(const NormaliseFields &f, const float *x, float *out) {
        using F = Vec<I, float>;
        typedef float One __attribute__((vector_size(4)));
        constexpr int L = lanes<I, float>;
        const int64_t C = f.x.C;
        const float largest = reduce<F, Largest>(x, C);
        int64_t c = 0;
        for (; c + L <= C; c += L) store(out + c, exponential<F>(load<F>(x + c) - largest));
        for (; c < C; c++) store(out + c, exponential<One>(load<One>(x + c) - largest));
        const float factor = 1.f / reduce<F, Sum>(out, C);
        for (c = 0; c + L <= C; c += L) store(out + c, load<F>(out + c) * factor);
        for (; c < C; c++) out[c] *= factor;
    }
    template <class I>
    JSC_INLINE void layer(const NormaliseFields &f, const float *x, float *out) {
        using F = Vec<I, float>;
        constexpr int L = lanes<I, float>;
        const int64_t C = f.x.C;
        const float mean = reduce<F, Sum>(x, C) / (float)C;
        int64_t c = 0;
        for (; c + L <= C; c += L) store(out + c, load<F>(x + c) - mean);
        for (; c < C; c++) out[c] = x[c] - mean;
        const float variance = reduce<F, SumOfSquares>(out, C) / (float)C;
        const float factor = 1.f / __builtin_sqrtf(variance + (float)f.eps);
        const float *weight = f.weight ? constant(f.weight) : nullptr,
                    *shift = f.shift ? constant(f.shift) : nullptr;
        for (c = 0; c + L <= C; c += L) {
            F y = load<F>(out + c) * factor;
            if (weight) y = y * load<F>(weight + c);
            store(out + c, shift ? y + load<F>(shift + c) : y);
        }
        for (; c < C; c++) {
            float y = out[c] * factor;
            if (weight) y *= weight[c];
            out[c] = shift ? y + shift[c] : y;
        }
    }
    template <class I>
    JSC_INLINE void run(const NormaliseFields *fields, int64_t n, int64_t first, int64_t rows,
                        const Call *call) {
        const NormaliseFields &f = *fields;
        float *square = (float *)call->scratch;
        if (f.kind == normalise_lrn)
            for (int64_t c = 0; c < margin; c++) square[c] = 0.f;
        for (int64_t y = first; y < first + rows; y++)
            for (int64_t w = 0; w < f.out.W; w++) {
                const float *x = at(f.x, *call, n, y, w);
                float *out = at(f.out, *call, n, y, w);
                if (f.kind == normalise_lrn) lrn<I>(f, x, out, square);
                else if (f.kind == normalise_softmax) softmax<I>(f, x, out);
                else layer<I>(f, x, out);
            }
    }
};

struct Normalise final : Instruction {
    NormaliseFields f;
    int64_t rows;
    explicit Normalise(const NormaliseFields &fields) : f(fields) {
        rows = rows_to_a_band(f.out.H, 4 * f.out.W * f.out.C);
    }
    int64_t tasks(int64_t) const override { return f.out.N * ceil_div(f.out.H, rows); }
    int64_t scratch_bytes() const override {
        return f.kind == normalise_lrn ? 4 * (f.x.C + 2 * margin + 16) : 0;
    }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t bands = ceil_div(f.out.H, rows), y = task % bands * rows;
        dispatch<NormaliseKernel>(isa, &f, task / bands, y, std::min(rows, f.out.H - y), &call);
    }
};

}  // namespace jsc::network
