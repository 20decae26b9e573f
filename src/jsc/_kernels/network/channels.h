// What instructions do number by number, over the loops of groups.h: activations in place, maxima, bounds.
#pragma once
#include "network/activation.h"

namespace jsc::network {

// out = act(x), once for each instruction set: inlined into every loop it would be most of the code.
struct ActivationKernel {
    template <class I, int64_t kind>
    JSC_INLINE void numbers(const float *x, float *out, int64_t count, const Activation &act) {
        const Activation known{kind, act.a, act.b};
        each_channel<I, 1>(0, count, [&](auto group, int64_t c) JSC_BODY {
            using F = typename decltype(group)::Vector;
            if constexpr (I::bytes == 64 && sizeof(F) < 64) {
                // Whole vectors have functions of their own there; what is left has the same bits, so that
                // numbers do not depend on where a run of them ends.
                using Whole = typename VectorOf<float, 64>::type;
                constexpr int count = sizeof(F) / 4;
                store_partial(out + c, activate<Whole>(load_partial<Whole>(x + c, count), known), count);
            } else {
                store(out + c, activate<F>(load<F>(x + c), known));
            }
        });
    }
    template <class I>
    JSC_INLINE void run(const float *x, float *out, int64_t count, const Activation *act) {
        switch (act->kind) {
        case act_clamp: numbers<I, act_clamp>(x, out, count, *act); break;
        case act_leaky: numbers<I, act_leaky>(x, out, count, *act); break;
        case act_elu: numbers<I, act_elu>(x, out, count, *act); break;
        case act_sigmoid: numbers<I, act_sigmoid>(x, out, count, *act); break;
        case act_silu: numbers<I, act_silu>(x, out, count, *act); break;
        case act_hard_sigmoid: numbers<I, act_hard_sigmoid>(x, out, count, *act); break;
        case act_hard_swish: numbers<I, act_hard_swish>(x, out, count, *act); break;
        case act_tanh: numbers<I, act_tanh>(x, out, count, *act); break;
        case act_gelu: numbers<I, act_gelu>(x, out, count, *act); break;
        case act_gelu_tanh: numbers<I, act_gelu_tanh>(x, out, count, *act); break;
        case act_threshold: numbers<I, act_threshold>(x, out, count, *act); break;
        default: numbers<I, act_none>(x, out, count, *act);
        }
    }
};
// A call from inside a kernel of the same instruction set. Both may be the same numbers.
template <class I>
JSC_INLINE void activate_numbers(const float *x, float *out, int64_t count, const Activation &act) {
    if (act.kind >= act_function)
        return call_apart<I, FunctionKernel>(x, out, count, act.kind - act_function);
    dispatch<ActivationKernel>(I::bytes == 64   ? ISA_AVX512
                               : I::bytes == 32 ? ISA_AVX2
                                                : ISA_BASE,
                               x, out, count, &act);
}

// NaN if one is. GCC 12 takes one choice with both conditions apart in vectors of 64 bytes, two not.
template <class V>
JSC_INLINE V larger_of(V a, V b) {
    const V y = a > b ? a : b;  // the instruction max, b where one is NaN
    return a == a ? y : a;
}
template <class V>
JSC_INLINE V smaller_of(V a, V b) {
    const V y = a < b ? a : b;
    return a == a ? y : a;
}

// Bounds that do nothing where there is no clamp: what a store can always do.
struct Bounds {
    float low, high;
    JSC_INLINE Bounds of(const Activation &act) {
        if (act.kind == act_clamp) return {(float)act.a, (float)act.b};
        return {-__builtin_inff(), __builtin_inff()};
    }
    template <class F>
    static inline __attribute__((always_inline)) F apply(F x, Bounds b) {
        const F low = F{} + b.low, high = F{} + b.high;
        x = low > x ? low : x;  // the instruction max: a NaN in x stays
        return high < x ? high : x;
    }
};
JSC_INLINE bool beyond_bounds(const Activation &act) { return act.kind > act_clamp; }

// The activations of a pixel that Bounds cannot do, after its numbers were stored.
template <class I>
JSC_INLINE void activate_pixel(float *out, int64_t count, const Activation &act) {
    if (beyond_bounds(act)) activate_numbers<I>(out, out, count, act);
}

}  // namespace jsc::network
