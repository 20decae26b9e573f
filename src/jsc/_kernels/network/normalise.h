// Normalisations over the channels of each pixel.
//
//   lrn        x[c] / (k + alpha / size sum(d) x[d]^2)^beta,  d from c - size / 2 to c + (size - 1) / 2
//   softmax    exp(x[c] - max) / sum exp(x - max)
//   layer      (x[c] - mean) / sqrt(variance + eps) weight[c] + shift[c]
//
// Channels lie side by side, so a window of LRN is `size` loads of one buffer of squares that has zeros on
// both sides. s^-3/4 is 1 / (sqrt(s) sqrt(sqrt(s))); other exponents go through power.h. The layer's variance
// is that of the differences from the mean, not of squares minus a square. Sums are four vectors of partial
// sums, added up at the end in an order that the number of channels fixes. `out` may lie where x does.
// Source of LRN: A. Krizhevsky et al., 2012, 3.3, with torch's window and mean.
#pragma once
#include "network/channels.h"
#include "network/power.h"

namespace jsc::network {

enum NormaliseKind : int64_t { normalise_lrn, normalise_softmax, normalise_layer };

struct NormaliseFields {
    Map x, out;
    int64_t kind, size;
    double alpha, beta, k, eps;
    uint64_t weight, shift;
};

// Reductions: `add` takes numbers in, `join` puts two results together.
struct Largest {
    static constexpr float start = -__builtin_inff();
    template <class V> JSC_INLINE V join(V a, V b) { return larger_of<V>(a, b); }
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
    template <class I, class Op>
    JSC_INLINE float reduce(const float *x, int64_t C) {
        using F = Vec<I, float>;
        using One = typename VectorOf<float, 4>::type;
        constexpr int L = lanes<I, float>;
        F total[4];
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) total[v] = F{} + Op::start;
        int64_t c = 0;
        for (; c + 4 * L <= C; c += 4 * L)
#pragma GCC unroll 4
            for (int v = 0; v < 4; v++) total[v] = Op::template add<F>(total[v], load<F>(x + c + v * L));
        for (; c + L <= C; c += L) total[0] = Op::template add<F>(total[0], load<F>(x + c));
        One rest = {Op::start};
        for (; c < C; c++) rest = Op::template add<One>(rest, load<One>(x + c));
        const F all = Op::template join<F>(Op::template join<F>(total[0], total[1]),
                                           Op::template join<F>(total[2], total[3]));
        alignas(64) float part[L];
        store(part, all);
        for (int width = L / 2; width; width /= 2)
            for (int l = 0; l < width; l++) {
                const One a = load<One>(part + l), b = load<One>(part + l + width);
                store(part + l, Op::template join<One>(a, b));
            }
        return Op::template join<One>(load<One>(part), rest)[0];
    }
    // square: size / 2 zeros, the squares, zeros again: C + size numbers.
    template <class I>
    JSC_INLINE void lrn(const NormaliseFields &f, const float *x, float *out, float *square) {
        constexpr int floats = lanes<I, float>;
        const int64_t C = f.x.C, size = f.size;
        float *middle = square + size / 2;
        each_channel<I, 1>(0, C, [&](auto group, int64_t c) JSC_BODY {
            using F = typename decltype(group)::Vector;
            const F number = load<F>(x + c);
            store(middle + c, number * number);
        });
        const float factor = (float)(f.alpha / (double)size), k = (float)f.k, beta = (float)f.beta;
        const bool three_quarters = f.beta == .75;
        each_channel<I, 1>(0, C, [&](auto group, int64_t c) JSC_BODY {
            using F = typename decltype(group)::Vector;
            constexpr int L = decltype(group)::lanes;
            F s{};
            for (int64_t d = 0; d < size; d++) s += load<F>(square + c + d);
            s = k + factor * s;
            if (three_quarters) {
                alignas(64) float power[floats];
                store(power, s);
                for (int l = 0; l < L; l++) {
                    const float root = __builtin_sqrtf(power[l]);
                    power[l] = root * __builtin_sqrtf(root);
                }
                s = 1.f / load<F>(power);
            } else {
                s = power<F>(s, -beta);
            }
            store(out + c, load<F>(x + c) * s);
        });
    }
    template <class I>
    JSC_INLINE void softmax(const NormaliseFields &f, const float *x, float *out) {
        const int64_t C = f.x.C;
        const float largest = reduce<I, Largest>(x, C);
        each_channel<I, 1>(0, C, [&](auto group, int64_t c) JSC_BODY {
            using F = typename decltype(group)::Vector;
            store(out + c, exp_or_zero<F>(load<F>(x + c) - largest));
        });
        const float factor = 1.f / reduce<I, Sum>(out, C);
        each_channel<I, 1>(0, C, [&](auto group, int64_t c) JSC_BODY {
            using F = typename decltype(group)::Vector;
            store(out + c, load<F>(out + c) * factor);
        });
    }
    template <class I>
    JSC_INLINE void layer(const NormaliseFields &f, const float *x, float *out) {
        const int64_t C = f.x.C;
        const float mean = reduce<I, Sum>(x, C) / (float)C;
        each_channel<I, 1>(0, C, [&](auto group, int64_t c) JSC_BODY {
            using F = typename decltype(group)::Vector;
            store(out + c, load<F>(x + c) - mean);
        });
        const float variance = reduce<I, SumOfSquares>(out, C) / (float)C;
        const float factor = 1.f / __builtin_sqrtf(variance + (float)f.eps);
        const float *weight = constant(f.weight), *shift = constant(f.shift);
        each_channel<I, 1>(0, C, [&](auto group, int64_t c) JSC_BODY {
            using F = typename decltype(group)::Vector;
            F y = load<F>(out + c) * factor;
            if (weight) y = y * load<F>(weight + c);
            if (shift) y = y + load<F>(shift + c);
            store(out + c, y);
        });
    }
    template <class I>
    JSC_INLINE void run(const NormaliseFields *fields, int64_t n, int64_t first, int64_t rows,
                        const Call *call) {
        const NormaliseFields &f = *fields;
        float *square = (float *)call->scratch;
        if (f.kind == normalise_lrn) memset(square, 0, 4 * (f.x.C + f.size));
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
    int64_t scratch_bytes() const override { return f.kind == normalise_lrn ? 4 * (f.x.C + f.size) : 0; }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t bands = ceil_div(f.out.H, rows), y = task % bands * rows;
        dispatch<NormaliseKernel>(isa, &f, task / bands, y, std::min(rows, f.out.H - y), &call);
    }
};

}  // namespace jsc::network
