// The soft quantiser:  Q(z) = q m(z/q),  m(u) = sum_k k P(k),  P(k) ~ exp(-kappa (u - k)^2),
// over all integers k, over a window of the nearest ones, or in the limit of hard rounding.
// One table entry (q, kappa) per vector: all its lanes are of one regime, and `each` has a loop for each
// regime of neighbouring entries.
//
// Derivatives, with Var = Var(k) and e = u - k (spelled out in jsc.functional.soft_quantize):
//   dQ/dz = 2 kappa Var =: slope      dQ/dq|kappa = m - u slope      dQ/dkappa = -q Cov(k, e^2)
// dQ/dq is taken at constant kappa; whoever holds alpha = kappa / q^2 constant applies the chain rule.
//
// With n = round(u), f = u - n in [-1/2, 1/2], a table entry is one of (kappa in float32; in float64):
//   LINEAR   kappa < 0.4; 0.2: m = u to within 3e-10; 1e-20.
//   SERIES_T kappa < 5.5; -: u - m = h(f), smooth and odd, as a polynomial of f with T terms, made for the
//            entry (softquant_entry.h); slope and dQ/dq follow from the polynomial's own derivative.
//   DUAL     -; kappa < 4: Jacobi's transform of the sum, 3 terms, r_j = exp(-pi^2 j^2 / kappa):
//            u - m = (2 pi / kappa) S / D, S = sum_j j r_j sin(2 pi j f), D = 1 + 2 sum_j r_j cos(2 pi j f),
//            as polynomials in c = cos(2 pi f).
//   DIRECT   kappa < 10; 20: the 5; 7 nearest levels. Weights relative to that of n:
//            w(+-1) = a, b = E1 exp(+-2 kappa f): one exponential for both, and
//            w(+-2) = a^2 E2, b^2 E2, w(+-3) = a^3 E6, b^3 E6, with Ej = exp(-j kappa).
//   NEAREST  kappa < 20; 40: the same of the 3 nearest.
//   SHARP    above: the nearer neighbour alone, and only where it weighs more than exp(-20); exp(-40).
//   WINDOW   the `2 half + 1` levels nearest to u inside [-level, level] (the authors' operator).
//   HARD     m = n, slope 0, dQ/dq = n.       STRAIGHT   m = n, slope 1, dQ/dq = n - u.
// Levels drawn from P are in draw.h.
// Truncation errors are below 5e-9 level widths in float32 and 1e-16 in float64.
// `limit` = level * q saturates every regime but WINDOW (which clamps its index): |z| > limit gives
// +-limit, slope 0, dQ/dq = +-level.
//
// Ladder (us for the coefficients of a 224x224 RGB image, in the cache, one thread, AVX-512 of an AMD EPYC,
// value / with derivatives)                                    kappa = 1     2          20         500
//   a branch for each entry                                    48 /  98   60 / 127  148 / 216   83 / 96
//   fractions clamped by the minimum and maximum instructions  43 /  87   53 / 113  136 / 187   75 / 85
//   a loop for each regime; 6, 8, 10 or 12 terms, not 6 or 10;
//   NEAREST; SHARP from 20 on in place of 40, in closed form   29 /  67   35 /  83   87 / 111   38 / 46
//   exponentials to base 2                                     29 /  67   35 /  83   77 / 100   35 / 44
// (The first steps met denormals at 20.) Tried and dropped: four packs at once, for which an entry's numbers
// are loaded once (no faster than the loop); 4 terms for kappa < .75 (dQ/dkappa wrong by 3e-4 of itself).
#pragma once
#include "jpeg/dct.h"
#include "jpeg/softquant_entry.h"
#include "simd/vmath.h"

namespace jsc {

// Table gradients are summed in this many interleaved lanes whatever the width of a vector.
template <class T>
constexpr int SUMS = 64 / (int)sizeof(T);

template <class I, class T>
struct SoftQuant {
    typedef Vec<I, T> V;
    typedef QuantEntry<T> Entry;
    static constexpr T GENTLE = sizeof(T) == 8 ? 350 : 40;  // exp(2 kappa f) cannot overflow up to here

    struct Moments {
        V s0, s1, s2, s3;
    };           // sum_d d^i w(d)
    struct Answer {
        V value, slope, dq, dkappa;
    };  // Q, dQ/dz, dQ/dq at constant kappa, dQ/dkappa

    JSC_INLINE V constant(T x) {
        V v = {};
        return v + x;
    }
    JSC_INLINE V clamp(V x, T low, T high) {  // NaN stays
        return at_least(at_most(x, constant(high)), constant(low));
    }
    // u - n with n = round(u). A quotient so large that its unit in the last place exceeds 1/2 has no
    // fraction, but a rounding error in its place, which the clamp keeps from the formulas of a fraction.
    JSC_INLINE V fraction(V u, V n) { return clamp(u - n, (T)-0.5, (T)0.5); }
    // exp(y) for y <= 0, zero from -GENTLE on.
    JSC_INLINE V exp_negative(V y) {
        V up, down;
        exp_pair(at_least(y, constant(-GENTLE)), up, down);
        return y > -GENTLE ? up : constant(0);
    }

    // a b = E2, so the powers of both follow from p = a + b and m = a - b; and at f = 0 every odd moment
    // is exactly zero, whatever the compiler fuses.
    template <int Half>
    JSC_INLINE Moments direct(V f, const Entry &e) {
        V up, down;
        exp2_pair(e.rise * f, up, down);
        V p = e.e1 * (up + down), m = e.e1 * (up - down);
        Moments s = {1 + p, m, p, m};
        if constexpr (Half >= 2) {
            V square = p * p, p2 = e.e2 * (square - 2 * e.e2), m2 = e.e2 * m * p;
            s.s0 += p2, s.s1 += 2 * m2, s.s2 += 4 * p2, s.s3 += 8 * m2;
            if constexpr (Half == 3) {
                V p3 = e.e6 * p * (square - 3 * e.e2), m3 = e.e6 * m * (square - e.e2);
                s.s0 += p3, s.s1 += 3 * m3, s.s2 += 9 * p3, s.s3 += 27 * m3;
            }
        }
        return s;
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

    // The weight of the farther of two levels, |f| = size.
    JSC_INLINE V farther(V size, const Entry &e) {
        V a, unused;
        exp2_pair(at_least(e.rise * size - e.half_rise, constant(-2 * GENTLE)), a, unused);
        return size > e.edge ? a : constant(0);
    }
    // Where that is a, with P = a / (1 + a) and s the sign of f,
    //   m = n + s P,   Var = P (1 - P),   Cov(k, e^2) = s Var (1 - 2 |f|).
    // It counts in a band of width FAINT / kappa below |f| = 1/2 only, and most vectors of a real image
    // have no lane there. A lane's answer does not depend on its neighbours.
    template <bool Gradient>
    JSC_INLINE Answer sharp(V u, V n, const Entry &e) {
        V f = fraction(u, n), size = magnitude(f);
        if (!any_above(size, constant(e.edge))) return {e.q * n, constant(0), n, constant(0)};
        V a = farther(size, e), inverse = 1 / (1 + a), share = a * inverse, mean = f < 0 ? -share : share;
        Answer answer = {e.q * (n + mean)};
        if constexpr (Gradient) {
            V variance = share * inverse;
            answer.slope = e.two_kappa * variance;
            answer.dq = n + mean - u * answer.slope;
            answer.dkappa = e.q * ((f < 0 ? -variance : variance) * (2 * size - 1));
        }
        return answer;
    }

    // h = f P(f^2), h' = P + 2 f^2 P' (both by one Horner scheme), dh/dkappa = f K(f^2).
    template <bool Gradient, int Terms>
    JSC_INLINE Answer series(V z, const Entry &e) {
        V u = z * e.inverse_q, f = fraction(u, round_even(u)), y = f * f;
        V p = constant(e.p[Terms - 1]), d = constant(0), k = constant(e.k[Terms - 1]);
#pragma GCC unroll 16
        for (int i = Terms - 2; i >= 0; i--) {
            if constexpr (Gradient) d = p + y * d, k = e.k[i] + y * k;
            p = e.p[i] + y * p;
        }
        V h = f * p;
        Answer answer = {z - e.q * h};
        if constexpr (Gradient) {
            V bend = p + 2 * y * d;  // 1 - slope
            answer.slope = 1 - bend;
            answer.dq = u * bend - h;
            answer.dkappa = -e.q * (f * k);
        }
        return answer;
    }

    template <bool Gradient>
    JSC_INLINE Answer dual(V z, const Entry &e) {
        V u = z * e.inverse_q, f = fraction(u, round_even(u)), sine, cosine;
        sincospi(f, sine, cosine);
        V c = 1 - 2 * sine * sine, s = 2 * sine * cosine;
        V sum = e.s0 + c * e.s1, norm = e.d1 + c * e.d2;
        sum += c * c * e.s2, norm += c * c * e.d3;
        norm = e.d0 + c * norm;
        V inverse = 1 / norm, h = s * sum * inverse;  // h = u - m
        Answer answer = {z - e.q * h};
        if constexpr (Gradient) {
            V first = e.c1 + c * e.c2, third = e.t0 + c * e.t1;
            first += c * c * e.c3, third += c * c * e.t2;
            first = (e.c0 + c * first) * inverse;
            third = s * third * inverse;
            V bend = first + 2 * e.kappa * h * h;  // 1 - slope
            answer.slope = 1 - bend;
            answer.dq = u * bend - h;
            answer.dkappa = e.q * (e.inverse_kappa * h * (1 + (T)0.5 * first) - third);
        }
        return answer;
    }

    template <bool Gradient, bool Straight>
    JSC_INLINE Answer hard(V z, const Entry &e) {
        // Division, not a product with 1/q: ties decide here.
        V u = z / e.q, n = round_even(u);
        Answer answer = {e.q * n};
        if constexpr (Gradient) {
            answer.slope = answer.dkappa = constant(0);
            answer.dq = n;
            if constexpr (Straight) answer.slope += 1, answer.dq -= u;
        }
        return answer;
    }

    template <bool Gradient>
    JSC_INLINE Answer windowed(V z, const Entry &e) {
        V u = z / e.q, n = round_even(u), c = clamp(n, -e.highest, e.highest);
        if (e.half != 2) return lattice<Gradient>(u, c, window(u, c, n, e), e);
        // Away from the ends the five levels are those of DIRECT or SHARP. Each lane has its own answer
        // whatever its neighbours need, so that results do not depend on who shares a vector.
        Answer answer = e.kappa > FAINT<T> ? sharp<Gradient>(u, n, e)
                                           : lattice<Gradient>(u, n, direct<2>(fraction(u, n), e), e);
        if (nonzero_mask(n - c)) {
            Answer end = lattice<Gradient>(u, c, window(u, c, n, e), e);
            answer.value = n == c ? answer.value : end.value;
            if constexpr (Gradient) {
                answer.slope = n == c ? answer.slope : end.slope;
                answer.dq = n == c ? answer.dq : end.dq;
                answer.dkappa = n == c ? answer.dkappa : end.dkappa;
            }
        }
        return answer;
    }

    template <bool Gradient, int Regime>
    JSC_INLINE Answer inside(V z, const Entry &e) {
        if constexpr (Regime == LINEAR) return {z, constant(1), constant(0), constant(0)};
        else if constexpr (Regime <= SERIES_12) return series<Gradient, series_terms(Regime)>(z, e);
        else if constexpr (Regime == DUAL) return dual<Gradient>(z, e);
        else if constexpr (Regime == WINDOW) return windowed<Gradient>(z, e);
        else if constexpr (Regime >= HARD) return hard<Gradient, Regime == STRAIGHT>(z, e);
        V u = z * e.inverse_q, n = round_even(u);
        if constexpr (Regime == SHARP) return sharp<Gradient>(u, n, e);
        constexpr int half = Regime == NEAREST ? 1 : sizeof(T) == 8 ? 3 : 2;
        return lattice<Gradient>(u, n, direct<half>(fraction(u, n), e), e);
    }
    template <bool Gradient, int Regime>
    JSC_INLINE Answer quantize(V z, const Entry &e) {
        if constexpr (Regime < LIMITED) return inside<Gradient, Regime>(z, e);
        Answer answer = inside<Gradient, Regime % LIMITED>(clamp(z, -e.limit, e.limit), e);
        if constexpr (Gradient) {
            answer.dq = z > e.limit ? constant(e.level) : z < -e.limit ? constant(-e.level) : answer.dq;
            answer.slope = z > e.limit || z < -e.limit ? constant(0) : answer.slope;
            answer.dkappa = z > e.limit || z < -e.limit ? constant(0) : answer.dkappa;
        }
        return answer;
    }

    // use(i, quantize) for entries 0 .. count - 1, where quantize(z) is the Answer of entry i. Neighbours
    // of one regime have a loop of their own, so that the processor computes several at a time: behind a
    // branch for each entry it waits for the chain of one polynomial.
    template <bool Gradient, class Use>
    JSC_INLINE void each(const Entry *e, int count, Use use) {
        for (int i = 0; i < count;)
            i = run_any<Gradient>(e, i, count, use, std::make_integer_sequence<int, 2 * LIMITED>());
    }
    template <bool Gradient, class Use, int... Regimes>
    JSC_INLINE int run_any(const Entry *e, int i, int count, Use use,
                           std::integer_sequence<int, Regimes...>) {
        ((has_regime<T>(Regimes) && e[i].regime == Regimes &&
          (i = run<Gradient, Regimes>(e, i, count, use), true)) ||
         ...);
        return i;
    }
    template <bool Gradient, int Regime, class Use>
    JSC_INLINE int run(const Entry *e, int i, int count, Use use) {
        if constexpr (has_regime<T>(Regime)) {
            const auto one = [&](V z) __attribute__((always_inline)) {
                return quantize<Gradient, Regime>(z, e[i]);
            };
            do use(i, one);
            while (++i < count && e[i].regime == Regime);
        }
        return i;
    }
};

}  // namespace jsc
