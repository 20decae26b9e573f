// Logarithm and powers of whole vectors.
//
//   logarithm(x)      ln x for x > 0, finite and no denormal; about 1 ulp
//   power(x, p)       x^p for x >= 0 and p other than 0: exp(p ln x), error about |p ln x| ulp; 0 below
//                     e^-87, infinite above e^88; NaN for x below zero
//   exp_or_zero(x)    exp(x) for x <= 0; 0 below -87, where float32 ends; NaN stays
//   exponential(x)    exp(x) of any x, with the numbers below 2^-126; 2 ulp
//   any_logarithm(x)  ln x of any x: -inf of 0, NaN below, inf of inf
//
// ln x = n ln 2 + ln m with m in [sqrt(1/2), sqrt 2), and ln m = 2 artanh(s), s = (m - 1) / (m + 1): a series
// in s^2.
#pragma once
#include "simd/vmath.h"

namespace jsc::network {

template <class V>
JSC_INLINE V logarithm(V x) {
    typedef decltype(x < x) Bits;
    const Bits bits = (Bits)x, shifted = bits - 0x3f3504f3;  // less the bits of sqrt(1/2): n is on top
    const Bits whole = shifted >> 23;
    const V m = (V)(bits - (whole << 23));
    // n as a float without a conversion: added to the bits of 1.5 2^23.
    const V n = (V)(whole + 0x4b400000) - 12582912.f;
    const V s = (m - 1.f) / (m + 1.f), y = s * s;
    V series = .11111111f + y * .090909091f;
    series = .14285714f + y * series;
    series = .2f + y * series;
    series = s * y * (.33333334f + y * series);
    const V low = 2.f * series + n * FloatFormat<float>::ln2_low;
    return n * FloatFormat<float>::ln2_high + (2.f * s + low);
}
template <class V>
JSC_INLINE V power(V x, float p) {
    V up, down;
    const V product = p * logarithm<V>(x), inside = product > 88.f ? V{} + 88.f : product;
    exp_pair<V>(inside < -87.f ? V{} - 87.f : inside, up, down);
    up = product > 88.f ? V{} + __builtin_inff() : product < -87.f ? V{} : up;
    const V end = p < 0 ? 1.f / x : x;  // of 0, inf and NaN
    up = x > 0.f ? up : end;
    up = x < __builtin_inff() ? up : end;
    return x < 0.f ? V{} + __builtin_nanf("") : up;
}
template <class V>
JSC_INLINE V exp_or_zero(V x) {
    V up, down;
    exp_pair<V>(x < -87.f ? V{} - 87.f : x, up, down);
    up = x < -87.f ? V{} : up;
    return x == x ? up : x;
}
// exp(x) = 2^h 2^h exp(r), x = 2 h ln 2 + r: one power of two would leave float32 before the result does.
template <class V>
JSC_INLINE V exponential(V x) {
    using Format = FloatFormat<float>;
    typedef decltype(x < x) Bits;
    const V low = x < -104.f ? V{} - 104.f : x, inside = low > 89.f ? V{} + 89.f : low;
    const V shifted = inside * .72134752f + Format::round, h = shifted - Format::round;
    V up, down;
    exp_pair<V>((inside - h * (2 * Format::ln2_high)) - h * (2 * Format::ln2_low), up, down);
    const V half = (V)(((Bits)shifted << Format::mantissa) + 0x3f800000);
    up = up * half * half;
    return x == x ? up : x;
}
template <class V>
JSC_INLINE V any_logarithm(V x) {
    const V tiny = V{} + 1.17549435e-38f;
    V y = logarithm<V>(x < tiny ? x * 16777216.f : x) - (x < tiny ? V{} + 16.6355323f : V{});
    y = x > 0.f ? y : V{} - __builtin_inff();
    y = x < 0.f ? V{} + __builtin_nanf("") : y;
    return x < __builtin_inff() ? y : x;  // inf and NaN
}

}  // namespace jsc::network
