// What is done to a sum before it is stored:  y = act(x + shift + residual). A batch-norm's scale is in the
// weights.
//
//   none           x                          relu, relu6, clamp, hardtanh are `clamp`: min(max(x, a), b)
//   leaky          x, or a x below 0          elu          x, or a (exp(x) - 1) below 0
//   sigmoid        1 / (1 + exp(-x))          silu         x sigmoid(x)
//   hard_sigmoid   clamp(x / 6 + 1/2, 0, 1)   hard_swish   x hard_sigmoid(x)
//   tanh           tanh(x)                    gelu         x (1 + erf(x / sqrt 2)) / 2
//   gelu_tanh      x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
//   threshold      x above a, else b          and the functions of functions.h
//
// NaN stays NaN everywhere. Largest errors: sigmoid and tanh 2e-7 of 1, gelu 3e-7 of x; of silu by AVX-512
// 1.5e-7 of itself, torch's 1.3e-7.
//
// SiLU by AVX-512's own rounding and scaling takes half the instructions of a clamp, a pair of exponentials
// and a shift: EfficientNet-B0, one thread of an AMD EPYC, 11.6 -> 10.8 ms. An estimate of the reciprocal and
// a step of Newton's in place of the division gained nothing.
// Source of erf: W. H. Press et al., Numerical Recipes, 2nd ed., 6.2 (erfcc, 1.2e-7).
#pragma once
#include <cfloat>

#include "network/functions.h"
#include "simd/numbers.h"

namespace jsc::network {

enum ActivationKind : int64_t {
    act_none,
    act_clamp,
    act_leaky,
    act_elu,
    act_sigmoid,
    act_silu,
    act_hard_sigmoid,
    act_hard_swish,
    act_tanh,
    act_gelu,
    act_gelu_tanh,
    act_threshold,
    act_function  // the first FunctionKind; the others follow
};

struct Activation {
    int64_t kind;
    double a, b;
};

// exp(x) for x <= 0, from -80 on (exp(-80) < 2e-35 counts as what is below it).
template <class V>
JSC_INLINE V exp_negative(V x) {
    V up, down;
    exp_pair<V>(x < -80.f ? V{} - 80.f : x, up, down);
    return up;
}
#if defined(__x86_64__) && !defined(JSC_PLAIN)
// exp(-x) by AVX-512: -x log2(e) = n + r, 2^r by its polynomial, and n added to the exponent, which may
// overflow. Beyond -104 and 80 x counts as these. NaN stays.
template <class V>
JSC_INLINE V exp_minus(V x) {
    V bounded, n, down;
    asm("vminps %2, %1, %0" : "=v"(bounded) : "v"(V{} + 80.f), "v"(x));
    asm("vmaxps %2, %1, %0" : "=v"(bounded) : "v"(V{} - 104.f), "v"(bounded));
    V again = bounded;
    keep_in_register(again);  // else GCC would not fuse the second product, whose rounding would count
    constexpr float high = -1.44269502f, low = -1.92596299e-8f;  // log2(1 / e)
    asm("vrndscaleps $8, %1, %0" : "=v"(n) : "v"(bounded * high));
    V r = again * high - n;
    r = again * low + r;
    V p = 0.0013400428f + r * 0.00015461445f;
    p = 0.0096180568f + r * p;
    p = 0.055503272f + r * p;
    p = 0.24022651f + r * p;
    p = 0.69314721f + r * p;
    p = 1.f + r * p;
    asm("vscalefps %2, %1, %0" : "=v"(down) : "v"(p), "v"(n));
    return down;
}
#endif
// y, but NaN where x is NaN, or -inf: there x f(x) is inf times 0.
template <class V>
JSC_INLINE V unless_infinite(V x, V y) {
    return x >= -FLT_MAX ? y : x - x;
}
// x / (1 + exp(-x)), or with `one` 1 / (1 + exp(-x)). Where exp would leave float32, x counts as -80 or 80.
template <class V>
JSC_INLINE V logistic(V x, bool one) {
#if defined(__x86_64__) && !defined(JSC_PLAIN)
    if constexpr (sizeof(V) == 64) return (one ? V{} + 1.f : x) / (1.f + exp_minus<V>(x));
#endif
    V low = x < -80.f ? V{} - 80.f : x, bounded = low > 80.f ? V{} + 80.f : low, up, down;
    exp_pair<V>(bounded, up, down);
    if (!one) return unless_infinite<V>(x, low / (1.f + down));
    V y = 1.f / (1.f + down);
    return x == x ? y : x;
}
template <class V>
JSC_INLINE V sigmoid(V x) {
    return logistic<V>(x, true);
}
template <class V>
JSC_INLINE V tanh_of(V x) {
    V size = magnitude(x), e = exp_negative<V>(-2.f * size), square = x * x;
    V far = (1.f - e) / (1.f + e);
    far = x < 0.f ? -far : far;
    V near =
        x *
        (1.f + square * (-1.f / 3 + square * (2.f / 15 + square * (-17.f / 315 + square * (62.f / 2835)))));
    V y = size < .25f ? near : far;
    return x == x ? y : x;
}
template <class V>
JSC_INLINE V gelu(V x) {
    V z = magnitude(x) * 0.70710678118654752f;
    V t = 1.f / (1.f + .5f * z);
    V p = 0.17087277f * t - 0.82215223f;
    p = p * t + 1.48851587f;
    p = p * t - 1.13520398f;
    p = p * t + 0.27886807f;
    p = p * t - 0.18628806f;
    p = p * t + 0.09678418f;
    p = p * t + 0.37409196f;
    p = p * t + 1.00002368f;
    p = p * t - 1.26551223f;
    V tail = .5f * t * exp_negative<V>(p - z * z);  // (1 - erf(z)) / 2
    V y = x < 0.f ? x * tail : x - x * tail;
    V infinite = x < 0.f ? V{} : x;
    y = z < 1e18f ? y : infinite;  // z z is beyond float32
    return unless_infinite<V>(x, y);
}

template <class V>
JSC_INLINE V activate(V x, const Activation &act) {
    const float a = (float)act.a, b = (float)act.b;
    switch (act.kind) {
    case act_clamp: x = x < a ? V{} + a : x; return x > b ? V{} + b : x;
    case act_leaky: return x < 0.f ? a * x : x;
    case act_elu: {
        V below = x < 0.f ? x : V{};
        // expm1 near zero: x + x^2/2 + ..., where exp(x) - 1 would cancel.
        V near = below * (1.f + below * (.5f + below * (1.f / 6 + below * (1.f / 24 + below * (1.f / 120)))));
        V y = a * (below > -.25f ? near : exp_negative<V>(below) - 1.f);
        return x < 0.f ? y : x;
    }
    case act_sigmoid: return sigmoid<V>(x);
    case act_silu: return logistic<V>(x, false);
    case act_hard_sigmoid:
    case act_hard_swish: {
        V y = x + 3.f;
        y = y < 0.f ? V{} : y;
        y = y > 6.f ? V{} + 6.f : y;
        return act.kind == act_hard_swish ? x * y * (1.f / 6) : y * (1.f / 6);
    }
    case act_tanh: return tanh_of<V>(x);
    case act_gelu: return gelu<V>(x);
    case act_gelu_tanh: {
        V y = x * sigmoid<V>(1.5957691216057308f * (x + 0.044715f * x * x * x));
        return unless_infinite<V>(x, x < -1e10f ? V{} : y);
    }
    case act_threshold: return x <= a ? V{} + b : x;
    default:
        if (act.kind < act_function) return x;
        alignas(64) float numbers[sizeof(V) / 4];
        store(numbers, x);
        function_apart<V>(numbers, sizeof(V) / 4, act.kind - act_function);
        return load<V>(numbers);
    }
}

// What follows a sum before it is stored; `shift` is the address of K floats, or 0.
struct Epilogue {
    uint64_t shift;
    int64_t has_residual;
    Map residual;
    Activation act;
};

// Full vectors of V at channel k; `residual` points to the same pixel and channel.
template <class V, class T>
JSC_INLINE V finish(V sum, const Epilogue &e, int64_t k, const T *residual) {
    if (e.shift) sum = sum + load<V>(constant(e.shift) + k);
    if (e.has_residual) sum = sum + load_numbers<V>(residual);
    return activate<V>(sum, e.act);
}
// The first n lanes; nothing behind them is read.
template <class V, class T>
JSC_INLINE V finish_partial(V sum, const Epilogue &e, int64_t k, const T *residual, int n) {
    if (e.shift) sum = sum + load_partial<V>(constant(e.shift) + k, n);
    if (e.has_residual) sum = sum + load_partial_numbers<V>(residual, n);
    return activate<V>(sum, e.act);
}

// n numbers (whole vectors) at once: what to do is asked once, not for each vector.
template <class V>
JSC_INLINE void activate_all(float *x, int64_t n, const Activation &act) {
    constexpr int L = sizeof(V) / 4;
    if (act.kind >= act_function) function_apart<V>(x, n, act.kind - act_function);
    else if (act.kind == act_silu)
        for (int64_t i = 0; i < n; i += L) store(x + i, logistic<V>(load<V>(x + i), false));
    else
        for (int64_t i = 0; i < n; i += L) store(x + i, activate<V>(load<V>(x + i), act));
}

// The common epilogue with its constants in registers, for the channels of one vector: a shift, a
// residual and bounds. It fits where `quick(e)`; other activations go through `finish`.
JSC_INLINE bool quick(const Epilogue &e) { return e.act.kind <= act_clamp; }
template <int bytes> struct QuickEpilogue {
    using F = typename VectorOf<float, bytes>::type;
    F shift, low, high;
    bool bounded;

    JSC_INLINE QuickEpilogue of(const Epilogue &e, int64_t k) {
        QuickEpilogue q;
        q.shift = e.shift ? load<F>(constant(e.shift) + k) : F{};
        q.bounded = e.act.kind == act_clamp;
        q.low = F{} + (float)e.act.a;
        q.high = F{} + (float)e.act.b;
        return q;
    }
    // `residual` is null where there is none.
    template <class T>
    __attribute__((always_inline)) F operator()(F sum, const T *residual) const {
        F value = sum + shift;
        if (residual) value += load_numbers<F>(residual);
        if (!bounded) return value;
        value = value < low ? low : value;
        return value > high ? high : value;
    }
};

// The activation of P pixels by V vectors, in registers where it is a clamp.
template <class F, int P, int V>
JSC_INLINE void activate_pixels(const Activation &act, F (&sum)[P][V]) {
    constexpr int L = sizeof(F) / 4;
    if (act.kind == act_clamp) {
        const F low = F{} + (float)act.a, high = F{} + (float)act.b;
#pragma GCC unroll 16
        for (int p = 0; p < P; p++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) {
                sum[p][v] = sum[p][v] < low ? low : sum[p][v];
                sum[p][v] = sum[p][v] > high ? high : sum[p][v];
            }
    }
    if (act.kind > act_clamp) {
        alignas(64) float numbers[P * V * L];
#pragma GCC unroll 16
        for (int p = 0; p < P; p++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) store(numbers + (p * V + v) * L, sum[p][v]);
        activate_all<F>(numbers, P * V * L, act);
#pragma GCC unroll 16
        for (int p = 0; p < P; p++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) sum[p][v] = load<F>(numbers + (p * V + v) * L);
    }
}

// The sums of P pixels by V whole vectors from channel k on, stored. The last vector begins `last` channels
// behind the first; `residual` is null where there is none.
template <class F, int P, int V, class T>
JSC_INLINE void finish_pixels(const Epilogue &e, F (&sum)[P][V], int64_t k, int64_t last, T *out,
                              int64_t step, const T *residual) {
    constexpr int L = sizeof(F) / 4;
    if (e.shift)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            const F shift = load<F>(constant(e.shift) + k + (v == V - 1 ? last : v * L));
#pragma GCC unroll 16
            for (int p = 0; p < P; p++) sum[p][v] += shift;
        }
    if (residual)
#pragma GCC unroll 16
        for (int p = 0; p < P; p++, residual += e.residual.pixel)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) sum[p][v] += load_numbers<F>(residual + (v == V - 1 ? last : v * L));
    activate_pixels<F, P, V>(e.act, sum);
#pragma GCC unroll 16
    for (int p = 0; p < P; p++, out += step)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) store_numbers(out + (v == V - 1 ? last : v * L), sum[p][v]);
}

}  // namespace jsc::network
