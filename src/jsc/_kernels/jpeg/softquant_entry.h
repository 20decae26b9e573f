// What the soft quantiser (softquant.h) needs to know of a table entry (q, kappa), computed once a call.
//
// SERIES: with the nome rho = exp(-pi^2 / kappa), the logarithmic derivative of the theta function gives
//   h(f) = u - m = -(2 pi / kappa) sum_n (-1)^n a_n sin(2 pi n f),   a_n = rho^n / (1 - rho^(2n))
// (Whittaker and Watson, Modern Analysis, 21.5, exercise), and every sine its Chebyshev series on |f| <= 1/2,
//   sin(pi n x) = 2 sum_i (-1)^i J_(2i+1)(pi n) T_(2i+1)(x),   x = 2 f,
// so that the coefficients of h = f P(f^2), and of its derivative in kappa, are a fixed matrix times a
// vector. Cut where what is left out is below 5e-9: after 6 terms for kappa < 1.5, after 12 for kappa < 5.5
// (and below 2e-6 of the whole h, which its derivatives need where h is small).
#pragma once
#include <math.h>

#include <cmath>

namespace jsc {

enum QuantMode { MODE_SOFT = 0, MODE_HARD = 1, MODE_STRAIGHT = 2, MODE_SAMPLE = 3 };
enum Regime {
    LINEAR,
    SERIES_6,
    SERIES_8,
    SERIES_10,
    SERIES_12,
    DUAL,
    DIRECT,
    NEAREST,
    SHARP,
    WINDOW,
    HARD,
    STRAIGHT,
    DRAW_1,  // draw.h
    DRAW_2,
    DRAW_3,
    DRAW_MANY,
    DRAW_SHARP,
    DRAW_WINDOW,
    LIMITED = 32  // added to the regime of an entry with a limit
};

constexpr int MOST_TERMS = 12, HARMONICS = 12;
constexpr int series_terms(int regime) { return 6 + 2 * (regime - SERIES_6); }
constexpr double SERIES_BELOW[] = {1.5, 2.75, 4, 5.5};  // kappa, for 6, 8, 10 and 12 terms

// A neighbour's weight of exp(-FAINT) is left out.
template <class T>
constexpr int FAINT = sizeof(T) == 8 ? 40 : 20;
// Whether entries of T have a regime of softquant.h: the series have float32's accuracy, and a window has no
// other limit.
template <class T>
constexpr bool has_regime(int regime) {
    const int plain = regime % LIMITED;
    if (plain >= SERIES_6 && plain <= SERIES_12) return sizeof(T) == 4;
    return plain == DUAL ? sizeof(T) == 8 : plain == WINDOW ? regime < LIMITED : plain <= STRAIGHT;
}

// sines[terms / 2 - 3][n - 1][i]: coefficient of f^(2i + 1) in sin(2 pi n f) cut after `terms` Chebyshev
// terms.
struct SineMatrix {
    double sines[4][HARMONICS][MOST_TERMS] = {};
    SineMatrix() {
        const double pi = 3.14159265358979323846;
        for (int m = 0; m < 4; m++) {
            const int terms = 6 + 2 * m;
            double before[2 * MOST_TERMS] = {1}, now[2 * MOST_TERMS] = {0, 1};  // T_0, T_1: powers of x
            for (int degree = 1; degree < 2 * terms; degree++) {
                if (degree % 2)
                    for (int n = 1; n <= HARMONICS; n++) {
                        const double weight = (degree % 4 == 1 ? 2 : -2) * jn(degree, pi * n);
                        for (int i = 0; i < terms; i++)
                            sines[m][n - 1][i] += weight * now[2 * i + 1] * ldexp(1, 2 * i + 1);
                    }
                for (int i = 2 * terms - 1; i >= 0; i--) {  // T_(d+1) = 2 x T_d - T_(d-1)
                    const double next = (i ? 2 * now[i - 1] : 0) - before[i];
                    before[i] = now[i], now[i] = next;
                }
            }
        }
    }
};

template <class T>
inline void series_coefficients(double kappa, int terms, T *p, T *k) {
    static const SineMatrix matrix;
    const double pi = 3.14159265358979323846, rho = exp(-pi * pi / kappa), scale = 2 * pi / kappa;
    double sum[MOST_TERMS] = {}, bend[MOST_TERMS] = {}, power = 1;
    for (int n = 1; n <= HARMONICS && power > 1e-12; n++) {
        power *= rho;
        const double sign = n % 2 ? scale : -scale, rest = 1 - power * power;
        const double a = sign * power / rest;
        // da/dkappa: of the factor 1 / kappa, and of rho, whose derivative is rho pi^2 / kappa^2.
        const double b = -a / kappa + a * n * (1 + power * power) / rest * pi * pi / (kappa * kappa);
        const double *sines = matrix.sines[terms / 2 - 3][n - 1];
        for (int i = 0; i < terms; i++) sum[i] += a * sines[i], bend[i] += b * sines[i];
    }
    for (int i = 0; i < terms; i++) p[i] = (T)sum[i], k[i] = (T)bend[i];
}

// What the regimes need to know of a table entry; the forward pass reads the first cache line.
template <class T>
struct QuantEntry {
    T regime, q, inverse_q, limit;
    union {
        T p[MOST_TERMS];  // SERIES: see softquant.h
        struct {
            T s0, s1, s2, d0, d1, d2, d3;
        };  // DUAL: (2 pi / kappa) S / sin, and D
        struct {
            T two_kappa, e1, e2, e6, edge, rise, half_rise;
        };  // DIRECT and what follows
    };
    T kappa, inverse_kappa, level, spare;
    union {  // derivatives
        T k[MOST_TERMS];
        struct {
            T c0, c1, c2, c3, t0, t1, t2;
        };
        struct {
            T half, highest;  // WINDOW: half width, highest centre
            T step, taps;  // DRAW: draw.h
        };
    };
};
constexpr long ENTRY_SIZE = 32;
static_assert(sizeof(QuantEntry<float>) == ENTRY_SIZE * sizeof(float), "scratch is counted in elements");

template <class T>
inline void prepare_entry(T step, T hardness, int mode, int window, long levels, T *scratch) {
    constexpr bool wide = sizeof(T) == 8;
    const double pi = 3.14159265358979323846;
    QuantEntry<T> &e = *(QuantEntry<T> *)scratch;
    e = QuantEntry<T>();
    double k = hardness > 0 ? (hardness < 1e18 ? (double)hardness : 1e18) : 0.0, split = 0;
    if (mode == MODE_SAMPLE && !window) {
        // A lattice softer than 0.16 is split into 2^i lattices harder than that (draw.h).
        k = fmax(k, 1e-8), split = fmin(12, fmax(0, floor(0.5 * log2(0.64 / k))));
        k *= exp2(2 * split);
    }
    e.q = step, e.inverse_q = 1 / step, e.kappa = k, e.inverse_kappa = 1 / k;
    e.level = levels ? (T)levels : (T)INFINITY;
    e.limit = levels ? (T)levels * step : (T)INFINITY;
    const double taps = fmin(11, fmax(1, ceil(sqrt(18 / k))));
    int regime;
    if (mode == MODE_HARD) regime = HARD;
    else if (mode == MODE_STRAIGHT) regime = STRAIGHT;
    else if (mode == MODE_SAMPLE)
        regime = window          ? DRAW_WINDOW
                 : k >= FAINT<T> ? DRAW_SHARP
                 : taps > 3      ? DRAW_MANY
                                 : DRAW_1 + (int)taps - 1;
    else if (window) regime = WINDOW;
    else if (k < (wide ? 0.2 : 0.4)) regime = LINEAR;
    else if (wide) regime = k < 4 ? DUAL : k < 20 ? DIRECT : k < FAINT<T> ? NEAREST : SHARP;
    else if (k < SERIES_BELOW[3])
        for (regime = SERIES_6; k >= SERIES_BELOW[regime - SERIES_6];) regime++;
    else regime = k < 10 ? DIRECT : k < FAINT<T> ? NEAREST : SHARP;

    if (regime >= SERIES_6 && regime <= SERIES_12) {
        series_coefficients(k, series_terms(regime), e.p, e.k);
    } else if (regime == DUAL) {
        const double r1 = exp(-pi * pi / k), r4 = exp(-4 * pi * pi / k), r9 = exp(-9 * pi * pi / k);
        const double s = 2 * pi / k, c = 2 * pi * s, t = s * pi * pi / (k * k);
        e.s0 = s * (r1 - 3 * r9), e.s1 = s * 4 * r4, e.s2 = s * 12 * r9;
        e.d0 = 1 - 2 * r4, e.d1 = 2 * r1 - 6 * r9, e.d2 = 4 * r4, e.d3 = 8 * r9;
        e.c0 = c * -4 * r4, e.c1 = c * (r1 - 27 * r9), e.c2 = c * 8 * r4, e.c3 = c * 36 * r9;
        e.t0 = t * (r1 - 27 * r9), e.t1 = t * 16 * r4, e.t2 = t * 108 * r9;
    } else {
        e.two_kappa = 2 * k, e.e1 = exp(-k), e.e2 = exp(-2 * k), e.e6 = exp(-6 * k);
        e.rise = e.two_kappa * 1.44269504088896340736, e.half_rise = e.rise / 2;  // to base 2
        e.edge = fmin(0.5 - 0.5 * FAINT<T> / k, std::nextafter((T)0.5, (T)0));  // 1/2 itself is beyond
        e.half = window / 2, e.highest = levels ? (T)(levels - window / 2) : (T)INFINITY;
        e.step = exp2(split), e.taps = taps;
    }
    if (!(step > 0) || hardness != hardness) {  // a step or hardness that is not a number must show
        if (regime < DRAW_1) regime = wide ? DUAL : SERIES_6;
        e.limit = INFINITY, e.p[0] = e.q = NAN;
    }
    if (regime == WINDOW || regime >= DRAW_1) e.limit = INFINITY;  // they clamp the level
    e.regime = regime + (e.limit < INFINITY ? LIMITED : 0);
}

}  // namespace jsc
