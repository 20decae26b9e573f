// Elementary functions of whole vectors: polynomials, no tables, no branches, no libm.
//   round_even(x)              nearest integer, |x| below half the mantissa's range
//   exp_pair(x, up, down)      exp(x) and exp(-x) for |x| <= 80 (float64: 700), one polynomial for both
//   exp2_pair(x, up, down)     2^x and 2^-x for |x| <= 120 (float64: 1000)
//   sincospi(x, s, c)          sin(pi x) and cos(pi x) for |x| <= 1/2
// Errors: float32 about 1 ulp, float64 about 1 ulp (cos: of 1). NaN in, NaN out, except through the
// exponent field of exp_pair, whose callers carry the NaN in another term.
// Source of the coefficients: interpolation at Chebyshev nodes, in 40-digit arithmetic.
#pragma once
#include <limits>

#include "simd/simd.h"

namespace jsc {

template <class T>
struct FloatFormat;
template <>
struct FloatFormat<float> {
    static constexpr int mantissa = 23;
    static constexpr float round = 12582912.f;  // 1.5 * 2^23: adding it leaves no fraction bits
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
};
template <>
struct FloatFormat<double> {
    static constexpr int mantissa = 52;
    static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
};

template <class V>
using ElementOf = std::decay_t<decltype(V{}[0])>;

template <class V>
JSC_INLINE V round_even(V x) {
    using Format = FloatFormat<ElementOf<V>>;
    return (x + Format::round) - Format::round;
}

template <class V>
JSC_INLINE V magnitude(V x) {
    typedef decltype(x < x) Bits;
    return (V)((Bits)x & (Bits{} + std::numeric_limits<ElementOf<Bits>>::max()));
}

// exp(+-x) = 2^(+-n) exp(+-r) with x = n ln 2 + r, and exp(+-r) = cosh r +- sinh r.
template <class V>
JSC_INLINE void exp_pair(V x, V &up, V &down) {
    using T = ElementOf<V>;
    using Format = FloatFormat<T>;
    typedef decltype(x < x) Bits;
    V shifted = x * (T)1.44269504088896340736 + Format::round;  // its low bits are n
    V n = shifted - Format::round;
    V r = (x - n * Format::ln2_high) - n * Format::ln2_low;
    V y = r * r;
    V even, odd;
    if constexpr (sizeof(T) == 4) {
        even = (T)0.0416662179600752302 + y * (T)0.00139486022484717267;
        even = (T)1.0 + y * ((T)0.500000010785861828 + y * even);
        odd = r * ((T)1.00000001078451328 + y * ((T)0.166665051310886565 + y * (T)0.00836916284526148175));
    } else {
        even = (T)2.75572394053217343e-7 + y * (T)2.09250502386256687e-9;
        even = (T)0.00138888888888613794 + y * ((T)0.000024801587366992127 + y * even);
        even = (T)1.0 + y * ((T)0.5 + y * ((T)0.0416666666666667218 + y * even));
        odd = (T)2.75572408558713488e-6 + y * (T)2.51100608048383453e-8;
        odd = (T)0.00833333333331957861 + y * ((T)0.000198412698901057066 + y * odd);
        odd = r * ((T)1.0 + y * ((T)0.166666666666666808 + y * odd));
    }
    Bits exponent = (Bits)shifted << Format::mantissa;  // everything but n falls off the top
    up = (V)((Bits)(even + odd) + exponent);
    down = (V)((Bits)(even - odd) - exponent);
}

// The same to base 2, whose r = x - n is exact.
template <class V>
JSC_INLINE void exp2_pair(V x, V &up, V &down) {
    using T = ElementOf<V>;
    using Format = FloatFormat<T>;
    typedef decltype(x < x) Bits;
    V shifted = x + Format::round;
    V r = x - (shifted - Format::round);
    V y = r * r;
    V even, odd;
    if constexpr (sizeof(T) == 4) {
        even = (T)0.00961802553039820805 + y * (T)0.000154697557449258220;
        even = (T)1.0 + y * ((T)0.240226512141200535 + y * even);
        odd = (T)0.0555035707115250733 + y * (T)0.00133908863321066976;
        odd = r * ((T)0.693147188035200283 + y * odd);
    } else {
        even = (T)7.05489118653403311e-9 + y * (T)2.57378367495163744e-11;
        even = (T)0.000154035303933511004 + y * ((T)0.00000132154868249951679 + y * even);
        even = (T)0.240226506959100712 + y * ((T)0.00961812910762848989 + y * even);
        even = (T)1.0 + y * even;
        odd = (T)1.01780570645733588e-7 + y * (T)4.45582202501491514e-10;
        odd = (T)0.00133335581464064355 + y * ((T)0.0000152527338416018152 + y * odd);
        odd = r * ((T)0.693147180559945309 + y * ((T)0.0555041086648216270 + y * odd));
    }
    Bits exponent = (Bits)shifted << Format::mantissa;
    up = (V)((Bits)(even + odd) + exponent);
    down = (V)((Bits)(even - odd) - exponent);
}

template <class V>
JSC_INLINE void sincospi(V x, V &s, V &c) {
    using T = ElementOf<V>;
    V y = x * x;
    if constexpr (sizeof(T) == 4) {
        s = (T)2.55007738652891187 + y * ((T)-0.598290411283427535 + y * (T)0.0776559122760138694);
        s = x * ((T)3.14159264007720325 + y * ((T)-5.16771007666831441 + y * s));
        c = (T)-1.33521194939055034 + y * ((T)0.23493706859508651 + y * (T)-0.0243959320975504445);
        c = (T)1.0 + y * ((T)-4.93480213692894564 + y * ((T)4.05870915476313425 + y * c));
    } else {
        s = (T)-2.2939987135869461e-8 + y * (T)5.2498791140604634e-10;
        s = (T)-0.0000219153528596944581 + y * ((T)7.95202573621384911e-7 + y * s);
        s = (T)-0.0073704309457075959 + y * ((T)0.000466302805688968351 + y * s);
        s = (T)-0.599264529320792066 + y * ((T)0.0821458866111278671 + y * s);
        s = (T)-5.16771278004997003 + y * ((T)2.55016403987734544 + y * s);
        s = x * ((T)3.14159265358979324 + y * s);
        c = (T)3.60339834653724851e-9 + y * (T)-7.49680186782207772e-11;
        c = (T)4.30306946734899727e-6 + y * ((T)-1.38789023363785759e-7 + y * c);
        c = (T)0.00192957430940193537 + y * ((T)-0.000104638104905963373 + y * c);
        c = (T)0.235330630358893198 + y * ((T)-0.0258068913900139223 + y * c);
        c = (T)4.05871212641676822 + y * ((T)-1.3352627688545895 + y * c);
        c = (T)1.0 + y * ((T)-4.93480220054467931 + y * c);
    }
}

}  // namespace jsc
