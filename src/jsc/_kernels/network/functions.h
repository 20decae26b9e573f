// Functions of numbers that seldom stand in a loop of their own behind a convolution.
//
//   abs, exp, log, sqrt, rsqrt, reciprocal    as named
//   softplus    log(1 + exp(x)) = max(x, 0) + log(1 + u), u = exp(-|x|)
//   mish        x tanh(softplus(x)) = x n / (n + 2 m): n = 1 + 2 u and m = u^2 above 0,
//                                                      n = u^2 + 2 u and m = 1 below
//
// Of NaN, 0, inf and negative numbers they are what torch's are. Errors: 2 ulp; softplus 3. Below 0, where
// they vanish, softplus and mish end at exp(-87). log(1 + u) is 2 artanh(s), s = u / (2 + u) up to 1/3: a
// series in s^2, so that small u lose nothing.
//
// A loop for each, compiled once for each instruction set: inlined into the epilogues of all convolutions
// they would be most of the code.
#pragma once
#include "network/groups.h"
#include "network/power.h"

namespace jsc::network {

enum FunctionKind : int64_t {
    function_abs,
    function_exp,
    function_log,
    function_sqrt,
    function_rsqrt,
    function_reciprocal,
    function_softplus,
    function_mish
};

template <class V>
JSC_INLINE V absolute(V x) {  // of -0 too, which `magnitude` keeps
    typedef decltype(x < x) Bits;
    return (V)((Bits)x & 0x7fffffff);
}
template <class V>
JSC_INLINE V square_root(V x) {
    constexpr int L = sizeof(V) / 4;
    alignas(64) float numbers[L];
    store(numbers, x);
    for (int l = 0; l < L; l++) numbers[l] = __builtin_sqrtf(numbers[l]);
    return load<V>(numbers);
}
template <class V>
JSC_INLINE V softplus(V x) {
    const V u = exp_or_zero<V>(-magnitude(x)), s = u / (2.f + u), y = s * s;
    V series = 1.f / 13 + y * (1.f / 15);
    series = 1.f / 9 + y * (1.f / 11 + y * series);
    series = 1.f / 5 + y * (1.f / 7 + y * series);
    series = 1.f + y * (1.f / 3 + y * series);
    return (x > 0.f ? x : V{}) + 2.f * s * series;
}
template <class V>
JSC_INLINE V mish(V x) {
    const V u = exp_or_zero<V>(-magnitude(x)), square = u * u;
    const V n = x > 0.f ? 1.f + 2.f * u : square + 2.f * u;
    const V m = x > 0.f ? square : V{} + 1.f;
    return x * (n / (n + 2.f * m));
}
template <class V, int64_t kind>
JSC_INLINE V function_of(V x) {
    switch (kind) {
    case function_abs: return absolute<V>(x);
    case function_exp: return exponential<V>(x);
    case function_log: return any_logarithm<V>(x);
    case function_sqrt: return square_root<V>(x);
    case function_rsqrt: return 1.f / square_root<V>(x);
    case function_reciprocal: return 1.f / x;
    case function_softplus: return softplus<V>(x);
    default: return mish<V>(x);
    }
}

struct FunctionKernel {
    template <class I, int64_t kind>
    JSC_INLINE void numbers(const float *x, float *out, int64_t count) {
        each_channel<I, 1>(0, count, [&](auto group, int64_t c) JSC_BODY {
            using F = typename decltype(group)::Vector;
            store(out + c, function_of<F, kind>(load<F>(x + c)));
        });
    }
    // Both may be the same numbers.
    template <class I>
    JSC_INLINE void run(const float *x, float *out, int64_t count, int64_t kind) {
        switch (kind) {
        case function_abs: numbers<I, function_abs>(x, out, count); break;
        case function_exp: numbers<I, function_exp>(x, out, count); break;
        case function_log: numbers<I, function_log>(x, out, count); break;
        case function_sqrt: numbers<I, function_sqrt>(x, out, count); break;
        case function_rsqrt: numbers<I, function_rsqrt>(x, out, count); break;
        case function_reciprocal: numbers<I, function_reciprocal>(x, out, count); break;
        case function_softplus: numbers<I, function_softplus>(x, out, count); break;
        default: numbers<I, function_mish>(x, out, count);
        }
    }
};

// The same of vectors that fill those of an instruction set, from its kernels.
template <class V>
JSC_INLINE void function_apart(float *x, int64_t count, int64_t kind) {
    using I = std::conditional_t<sizeof(V) == 64, Avx512, std::conditional_t<sizeof(V) == 32, Avx2, Base>>;
    asm("" : "+r"(count));  // GCC would make a copy of the kernel for each number that it knows
    call_apart<I, FunctionKernel>((const float *)x, x, count, kind);
}

}  // namespace jsc::network
