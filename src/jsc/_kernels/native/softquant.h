// The soft quantiser:  Q(z) = q m(z/q),  m(u) = sum_k k P(k),  P(k) ~ exp(-kappa (u - k)^2),
// over all integers k, over a window of the nearest ones, or in the limit of hard rounding.
// One table entry (q, kappa) per vector, so the regime is one branch for all lanes.
//
// Derivatives, with Var = Var(k) and e = u - k (spelled out in jsc.functional.soft_quantize):
//   dQ/dz = 2 kappa Var =: slope      dQ/dq|kappa = m - u slope      dQ/dkappa = -q Cov(k, e^2)
// dQ/dq is taken at constant kappa; whoever holds alpha = kappa / q^2 constant applies the chain rule.
//
// With n = round(u), f = u - n in [-1/2, 1/2], a table entry is one of:
//   LINEAR   kappa < 0.4 (float64: 0.2): m = u to within 3e-10 (1e-20).
//   DUAL     kappa < 4: Jacobi's transform of the sum, 2 (3) terms, r_j = exp(-pi^2 j^2 / kappa):
//            u - m = (2 pi / kappa) S / D, S = sum_j j r_j sin(2 pi j f), D = 1 + 2 sum_j r_j cos(2 pi j f),
//            as polynomials in c = cos(2 pi f).
//   DIRECT   kappa <= 40 (350): the 5 (7) nearest levels. Weights relative to that of n:
//            w(+-1) = a, b = E1 exp(+-2 kappa f): one exponential for both, and
//            w(+-2) = a^2 E2, b^2 E2, w(+-3) = a^3 E6, b^3 E6, with Ej = exp(-j kappa).
//   SHARP    above: the same with the one neighbour that is not negligible.
//   WINDOW   the `2 half + 1` levels nearest to u inside [-level, level] (the authors' operator).
//   HARD     m = n, slope 0, dQ/dq = n.       STRAIGHT   m = n, slope 1, dQ/dq = n - u.
//   SAMPLE   k drawn from P with a uniform number, by inversion (forward only).
// Truncation errors are below 2e-9 level widths in float32 and 1e-16 in float64.
// `limit` = level * q saturates every regime but WINDOW (which clamps its index): |z| > limit gives
// +-limit, slope 0, dQ/dq = +-level.
#pragma once
#include <cmath>

#include "dct8.h"
#include "vmath.h"

namespace jsc {

enum QuantMode { MODE_SOFT = 0, MODE_HARD = 1, MODE_STRAIGHT = 2, MODE_SAMPLE = 3 };
enum Regime { LINEAR, DUAL, DIRECT, SHARP, WINDOW, HARD, STRAIGHT, SAMPLE };

// What the regimes need to know of a table entry; the forward pass reads the first cache line.
template <class T>
struct QuantEntry {
    T regime, q, inverse_q, limit, two_kappa, e1, e2, e6;
    T s0, s1, s2, d0, d1, d2, d3;                              // DUAL: (2 pi / kappa) S / sin, and D
    T kappa, inverse_kappa, level, c0, c1, c2, c3, t0, t1, t2;  // derivatives
    T half, highest;                                           // WINDOW: half width, highest centre
    T step, taps;                                              // SAMPLE: see sample()
};
constexpr long ENTRY_SIZE = 29;
static_assert(sizeof(QuantEntry<float>) == ENTRY_SIZE * sizeof(float), "scratch is counted in elements");

template <class T>
inline void prepare_entry(T step, T hardness, int mode, int window, long levels, T *scratch) {
    constexpr bool wide = sizeof(T) == 8;
    const double pi = 3.14159265358979323846;
    QuantEntry<T> &e = *(QuantEntry<T> *)scratch;
    e = QuantEntry<T>();
    double k = hardness > 0 ? (hardness < 1e18 ? (double)hardness : 1e18) : 0.0;
    if (mode == MODE_SAMPLE && !window) {
        // A lattice softer than 0.16 is split into 2^i lattices harder than that (see sample()).
        double split = floor(0.5 * log2(0.64 / fmax(k, 1e-8)));
        e.step = split > 12 ? 4096 : split > 0 ? exp2(split) : 1;
        k *= (double)e.step * e.step;
        e.taps = fmin(11, fmax(1, ceil(sqrt(18 / k))));
    }
    e.q = step, e.inverse_q = 1 / step;
    e.kappa = k, e.two_kappa = 2 * k, e.inverse_kappa = 1 / k;
    e.e1 = exp(-k), e.e2 = exp(-2 * k), e.e6 = exp(-6 * k);
    e.level = levels ? (T)levels : (T)INFINITY;
    e.limit = levels ? (T)levels * step : (T)INFINITY;
    e.half = window / 2;
    e.highest = levels ? (T)(levels - window / 2) : (T)INFINITY;
    if (mode == MODE_HARD) {
        e.regime = HARD;
    } else if (mode == MODE_STRAIGHT) {
        e.regime = STRAIGHT;
    } else if (mode == MODE_SAMPLE) {
        e.regime = SAMPLE;
    } else if (window) {
        e.regime = WINDOW, e.limit = INFINITY;
    } else if (k >= 4) {
        e.regime = k <= (wide ? 350 : 40) ? DIRECT : SHARP;
    } else if (k < (wide ? 0.2 : 0.4)) {
        e.regime = LINEAR;
    } else {
        e.regime = DUAL;
        const double r1 = exp(-pi * pi / k), r4 = exp(-4 * pi * pi / k), r9 = wide ? exp(-9 * pi * pi / k) : 0;
        const double s = 2 * pi / k, c = 2 * pi * s, t = s * pi * pi / (k * k);
        e.s0 = s * (r1 - 3 * r9), e.s1 = s * 4 * r4, e.s2 = s * 12 * r9;
        e.d0 = 1 - 2 * r4, e.d1 = 2 * r1 - 6 * r9, e.d2 = 4 * r4, e.d3 = 8 * r9;
        e.c0 = c * -4 * r4, e.c1 = c * (r1 - 27 * r9), e.c2 = c * 8 * r4, e.c3 = c * 36 * r9;
        e.t0 = t * (r1 - 27 * r9), e.t1 = t * 16 * r4, e.t2 = t * 108 * r9;
    }
    if (!(step > 0) || hardness != hardness) {  // a step or hardness that is not a number must show
        e.regime = DUAL, e.limit = INFINITY, e.s0 = e.q = NAN;
    }
}

// Table gradients are summed in this many interleaved lanes whatever the width of a vector.
template <class T>
constexpr int SUMS = 64 / (int)sizeof(T);

template <class I, class T>
struct SoftQuant {
    typedef Vec<I, T> V;
    typedef QuantEntry<T> Entry;
    static constexpr T GENTLE = sizeof(T) == 8 ? 350 : 40;  // exp(2 kappa f) cannot overflow up to here

    struct Moments { V s0, s1, s2, s3; };           // sum_d d^i w(d)
    struct Answer { V value, slope, dq, dkappa; };  // Q, dQ/dz, dQ/dq at constant kappa, dQ/dkappa

    JSC_INLINE V constant(T x) {
        V v = {};
        return v + x;
    }
    JSC_INLINE V clamp(V x, T low, T high) {  // NaN stays
        x = x > high ? constant(high) : x;
        return x < low ? constant(low) : x;
    }
    // exp(y) for y <= 0, zero below -GENTLE.
    JSC_INLINE V exp_negative(V y) {
        V up, down;
        exp_pair(clamp(y, -GENTLE, 0), up, down);
        return y > -GENTLE ? up : constant(0);
    }

    // a b = E2, so the powers of both follow from p = a + b and m = a - b; and at f = 0 every odd moment
    // is exactly zero, whatever the compiler fuses.
    template <int Half>
    JSC_INLINE Moments direct(V f, const Entry &e) {
        V up, down;
        exp_pair(e.two_kappa * f, up, down);
        V p = e.e1 * (up + down), m = e.e1 * (up - down), square = p * p;
        V p2 = e.e2 * (square - 2 * e.e2), m2 = e.e2 * m * p;
        Moments s = {1 + p + p2, m + 2 * m2, p + 4 * p2, m + 8 * m2};
        if constexpr (Half == 3) {
            V p3 = e.e6 * p * (square - 3 * e.e2), m3 = e.e6 * m * (square - e.e2);
            s.s0 += p3, s.s1 += 3 * m3, s.s2 += 9 * p3, s.s3 += 27 * m3;
        }
        return s;
    }

    JSC_INLINE Moments sharp(V f, const Entry &e) {
        V a = exp_negative(e.kappa * (2 * magnitude(f) - 1)), signed_a = f < 0 ? -a : a;
        return {1 + a, signed_a, a, signed_a};
    }

    // Levels c - half .. c + half around a clamped centre c. When saturated, u - c is large: weights are
    // taken relative to the nearest candidate.
    JSC_INLINE Moments window(V u, V c, V n, const Entry &e) {
        V f = u - c, nearest = clamp(n - c, -e.half, e.half);
        Moments m = {};
        for (T d = -e.half; d <= e.half; d += 1) {
            V w = exp_negative(-e.kappa * (d - nearest) * (d + nearest - 2 * f));
            m.s0 += w, m.s1 += d * w, m.s2 += d * d * w, m.s3 += d * d * d * w;
        }
        return m;
    }

    // `Gradient` false: only the value is computed.
    template <bool Gradient>
    JSC_INLINE Answer lattice(V u, V n, const Moments &m, const Entry &e) {
        V inverse = 1 / m.s0, mean = m.s1 * inverse;
        Answer answer = {e.q * (n + mean)};
        if constexpr (Gradient) {
            V second = m.s2 * inverse, variance = second - mean * mean;
            V covariance = m.s3 * inverse - mean * second - 2 * (u - n) * variance;  // Cov(k, e^2)
            answer.slope = e.two_kappa * variance;
            answer.dq = n + mean - u * answer.slope;
            answer.dkappa = -e.q * covariance;
        }
        return answer;
    }

    template <bool Gradient>
    JSC_INLINE Answer dual(V z, const Entry &e) {
        V u = z * e.inverse_q, f = u - round_even(u), sine, cosine;
        sincospi(f, sine, cosine);
        V c = 1 - 2 * sine * sine, s = 2 * sine * cosine;
        V sum = e.s0 + c * e.s1, norm = e.d1 + c * e.d2;
        if constexpr (sizeof(T) == 8) sum += c * c * e.s2, norm += c * c * e.d3;
        norm = e.d0 + c * norm;
        V inverse = 1 / norm, h = s * sum * inverse;  // h = u - m
        Answer answer = {z - e.q * h};
        if constexpr (Gradient) {
            V first = e.c1 + c * e.c2, third = e.t0 + c * e.t1;
            if constexpr (sizeof(T) == 8) first += c * c * e.c3, third += c * c * e.t2;
            first = (e.c0 + c * first) * inverse;
            third = s * third * inverse;
            V bend = first + e.two_kappa * h * h;  // 1 - slope
            answer.slope = 1 - bend;
            answer.dq = u * bend - h;
            answer.dkappa = e.q * (e.inverse_kappa * h * (1 + (T)0.5 * first) - third);
        }
        return answer;
    }

    template <bool Gradient>
    JSC_INLINE Answer hard(V z, const Entry &e) {
        // Division, not a product with 1/q: ties decide here.
        V u = z / e.q, n = round_even(u);
        Answer answer = {e.q * n};
        if constexpr (Gradient) {
            bool straight = e.regime == STRAIGHT;
            answer.slope = answer.dkappa = constant(0);
            answer.dq = n;
            if (straight) answer.slope += 1, answer.dq -= u;
        }
        return answer;
    }

    template <bool Gradient>
    JSC_INLINE Answer inside(V z, const Entry &e) {
        const int regime = (int)e.regime;
        if (regime == LINEAR) return {z, constant(1), constant(0), constant(0)};
        if (regime == DUAL) return dual<Gradient>(z, e);
        if (regime >= HARD) return hard<Gradient>(z, e);
        if (regime == WINDOW) {
            V u = z / e.q, n = round_even(u), c = clamp(n, -e.highest, e.highest);
            if (e.half != 2) return lattice<Gradient>(u, c, window(u, c, n, e), e);
            // Away from the ends the five levels are those of DIRECT. Each lane has its own answer
            // whatever its neighbours need, so that results do not depend on who shares a vector.
            Moments s = e.kappa <= GENTLE ? direct<2>(u - n, e) : sharp(u - n, e);
            if (nonzero_mask(n == c ? constant(0) : constant(1))) {
                Moments all = window(u, c, n, e);
                s = {n == c ? s.s0 : all.s0, n == c ? s.s1 : all.s1, n == c ? s.s2 : all.s2, n == c ? s.s3 : all.s3};
            }
            return lattice<Gradient>(u, c, s, e);
        }
        V u = z * e.inverse_q, n = round_even(u);
        if (regime == DIRECT) return lattice<Gradient>(u, n, direct<sizeof(T) == 8 ? 3 : 2>(u - n, e), e);
        return lattice<Gradient>(u, n, sharp(u - n, e), e);
    }

    template <bool Gradient>
    JSC_INLINE Answer quantize(V z, const Entry &e) {
        if (!(e.limit < (T)INFINITY)) return inside<Gradient>(z, e);
        Answer answer = inside<Gradient>(clamp(z, -e.limit, e.limit), e);
        if constexpr (Gradient) {
            answer.dq = z > e.limit ? constant(e.level) : z < -e.limit ? constant(-e.level) : answer.dq;
            answer.slope = z > e.limit || z < -e.limit ? constant(0) : answer.slope;
            answer.dkappa = z > e.limit || z < -e.limit ? constant(0) : answer.dkappa;
        }
        return answer;
    }

    // k from P by inversion. With step s = 2^i > 1 first its residue modulo s, uniform to within 4e-7
    // because kappa s^2 < 0.64 (the transform of DUAL again), then k = s k' + residue with k' from the
    // lattice of hardness kappa s^2 around (u - residue) / s.
    JSC_INLINE V sample(V z, V noise, const Entry &e) {
        constexpr int MOST = 11;
        V u = z / e.q, residue = constant(0), n, c;
        V weight[2 * MOST + 1];
        int taps;
        if (e.half > 0) {
            n = round_even(u), c = clamp(n, -e.highest, e.highest);
            taps = e.half < MOST ? (int)e.half : MOST;
            V f = u - c, nearest = clamp(n - c, -e.half, e.half);
            for (int d = -taps; d <= taps; d++)
                weight[taps + d] = exp_negative(-e.kappa * ((T)d - nearest) * ((T)d + nearest - 2 * f));
        } else {
            V scaled = noise * e.step;
            residue = round_even(scaled);
            residue = residue > scaled ? residue - 1 : residue;  // floor
            noise = scaled - residue;
            u = (u - residue) / e.step;
            c = n = round_even(u);
            taps = (int)e.taps;
            V f = u - n, up = exp_negative(e.kappa * (2 * f - 1)), down = exp_negative(-e.kappa * (2 * f + 1));
            V high = constant(1), low = high;
            weight[taps] = high;
            for (int d = 1; d <= taps; d++) {
                weight[taps + d] = high *= up, weight[taps - d] = low *= down;
                up *= e.e2, down *= e.e2;
            }
        }
        V total = constant(0), below = total, k = c - (T)taps;
        for (int d = 0; d <= 2 * taps; d++) total += weight[d];
        V threshold = noise * total;
        for (int d = 0; d < 2 * taps; d++) {
            below += weight[d];
            k = below < threshold ? k + 1 : k;
        }
        if (e.step > 1) k = k * e.step + residue;
        return e.q * clamp(k, -e.level, e.level);
    }
};

}  // namespace jsc
