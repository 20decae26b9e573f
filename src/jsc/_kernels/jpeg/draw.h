// Levels drawn:  Q(z) = q k,  k from P(k) ~ exp(-kappa (z/q - k)^2), by inversion of uniform numbers, which
// follow from the seed, the block, the coefficient and the round (simd/threefry.h): whoever needs a number
// makes it, and who needs none makes none.
//
// An entry is one of (n = round(u), f = u - n, as in softquant.h):
//   DRAW_SHARP    kappa >= 20 (float64: 40): n, or its nearer neighbour where that weighs more than exp(-20)
//                 (exp(-40)). A vector with no such lane needs no number.
//   DRAW_T        T = 1, 2, 3 levels on either side of n: what lies farther weighs less than 1.5e-8.
//   DRAW_MANY     kappa < 2: up to 11. A lattice softer than 0.16 is split: with step s = 2^i > 1 first the
//                 residue modulo s, uniform to within 4e-7 because kappa s^2 < 0.64 (the transform of DUAL),
//                 then k = s k' + residue with k' from the lattice of hardness kappa s^2 around
//                 (u - residue) / s.
//   DRAW_WINDOW   the levels of a window.
//
// Ladder (us per 224x224 RGB image at 4:4:4, the layer forward, in the cache, one thread, AVX-512 of an AMD
// EPYC; levels not drawn: 110, 153, 104)                     kappa = 2    20    500
//   a number for each coefficient, one quad after the other        390   491    450
//   four quads' numbers at a time, none where all levels are       317   271    180
//   certain, 1, 2 or 3 levels on either side, two where SHARP
// Of the 317 the numbers take 68. Tried and dropped: sums of weights first, then comparisons (no faster for 3
// levels, 15 % slower for 11).
#pragma once
#include "jpeg/softquant.h"
#include "simd/threefry.h"

namespace jsc {

template <class I, class T>
struct LevelDraw : SoftQuant<I, T> {
    typedef SoftQuant<I, T> Q;
    typedef typename Q::V V;
    typedef QuantEntry<T> Entry;
    static constexpr int L = lanes<I, T>, MOST_TAPS = 11;
    typedef Threefry<L> F;
    struct Numbers {  // of a pack's blocks
        typename F::Word low, high;
        inline __attribute__((always_inline)) void set(int l, uint64_t number) {
            low[l] = (uint32_t)number, high[l] = (uint32_t)(number >> 32);
        }
    };

    // The coefficients of a pack (64, L); `to` may be z.
    JSC_INLINE void run(const uint32_t seed[2], const Numbers &block, int round, const Entry *e, const T *z,
                        T *to) {
        alignas(64) T noise[64 * L];
        uint32_t quads = 0;
        for (int i = 0; i < 64; i++) quads |= (uint32_t)is_open(load<V>(z + i * L), e[i]) << i / 4;
        make_noise(seed, block, round, quads, noise);
        for (int i = 0; i < 64;)
            i = any<DRAW_1, DRAW_2, DRAW_3, DRAW_MANY, DRAW_SHARP, DRAW_WINDOW>(e, i, z, noise, to);
    }
    // Whether it takes a number to say which level it is.
    JSC_INLINE bool is_open(V z, const Entry &e) {
        if (e.regime != DRAW_SHARP) return true;
        V u = z * e.inverse_q;
        return any_above(magnitude(Q::fraction(u, round_even(u))), Q::constant(e.edge));
    }
    // Numbers for the coefficients 4 b .. 4 b + 3 where bit b of `quads` is set.
    JSC_INLINE void make_noise(const uint32_t seed[2], const Numbers &block, int round, uint32_t quads,
                               T *noise) {
        constexpr int N = 4;
        while (quads) {
            int quad[N];
            typename F::Word words[N][4];
            for (int n = 0; n < N; n++) {
                quad[n] = quads ? __builtin_ctz(quads) : quad[0];  // the first once more
                quads &= quads - 1;
                words[n][0] = block.low, words[n][1] = block.high;
                words[n][2] = F::constant((uint32_t)quad[n]), words[n][3] = F::constant((uint32_t)round);
            }
            F::template run<N>(words, seed);
            for (int n = 0; n < N; n++)
                for (int j = 0; j < 4; j++)
                    store(noise + (4 * quad[n] + j) * L, F::template uniform<V>(words[n][j]));
        }
    }
    // A loop for each regime of neighbouring entries, as SoftQuant::each.
    template <int... Regimes>
    JSC_INLINE int any(const Entry *e, int i, const T *z, const T *noise, T *to) {
        ((e[i].regime == Regimes && (i = loop<Regimes>(e, i, z, noise, to), true)) || ...);
        return i;
    }
    template <int Regime>
    JSC_INLINE int loop(const Entry *e, int i, const T *z, const T *noise, T *to) {
        do {
            V k = level<Regime>(load<V>(z + i * L), noise + i * L, e[i]);
            store(to + i * L, e[i].q * Q::clamp(k, -e[i].level, e[i].level));
        } while (++i < 64 && e[i].regime == Regime);
        return i;
    }

    template <int Regime>
    JSC_INLINE V level(V z, const T *noise, const Entry &e) {
        if constexpr (Regime == DRAW_WINDOW) return of_window(z / e.q, load<V>(noise), e);
        else if constexpr (Regime == DRAW_SHARP) return of_two(z * e.inverse_q, noise, e);
        else if constexpr (Regime == DRAW_MANY) return split(z * e.inverse_q, load<V>(noise), e);
        else return of_lattice<Regime - DRAW_1 + 1>(z * e.inverse_q, load<V>(noise), Regime - DRAW_1 + 1, e);
    }
    JSC_INLINE V of_two(V u, const T *noise, const Entry &e) {
        V n = round_even(u), f = Q::fraction(u, n), size = magnitude(f);
        if (!any_above(size, Q::constant(e.edge))) return n;
        V a = Q::farther(size, e), threshold = load<V>(noise) * (1 + a);
        V above = threshold > 1 ? n + 1 : n, below = threshold <= a ? n - 1 : n;
        return f < 0 ? below : above;
    }
    JSC_INLINE V split(V u, V noise, const Entry &e) {
        if (!(e.step > 1)) return of_lattice<MOST_TAPS>(u, noise, (int)e.taps, e);
        V scaled = noise * e.step, residue = round_even(scaled);
        residue = residue > scaled ? residue - 1 : residue;  // floor
        V k = of_lattice<MOST_TAPS>((u - residue) / e.step, scaled - residue, (int)e.taps, e);
        return k * e.step + residue;
    }
    // One of the levels n - taps .. n + taps. Each one's weight is its neighbour's times `up` or `down`, and
    // these E2 for each step.
    template <int Most>
    JSC_INLINE V of_lattice(V u, V noise, int taps, const Entry &e) {
        V n = round_even(u), up, down;
        exp2_pair(e.rise * Q::fraction(u, n), up, down);
        up *= e.e1, down *= e.e1;
        V weight[2 * Most + 1], high = Q::constant(1), low = high, total = high;
        if constexpr (Most <= 3) taps = Most;
        weight[taps] = high;
#pragma GCC unroll 3
        for (int d = 1; d <= taps; d++) {
            weight[taps + d] = high *= up, weight[taps - d] = low *= down;
            total += high + low;
            up *= e.e2, down *= e.e2;
        }
        return n + passed(weight, taps, noise * total);
    }
    // The level -taps .. taps at which the sum of weights passes the threshold.
    JSC_INLINE V passed(const V *weight, int taps, V threshold) {
        V below = Q::constant(0), k = Q::constant((T)-taps);
#pragma GCC unroll 6
        for (int d = 0; d < 2 * taps; d++) {
            below += weight[d];
            k = below < threshold ? k + 1 : k;
        }
        return k;
    }
    JSC_INLINE V of_window(V u, V noise, const Entry &e) {
        V n = round_even(u), c = Q::clamp(n, -e.highest, e.highest);
        V weight[2 * MOST_TAPS + 1], total = Q::constant(0);
        const int taps = e.half < MOST_TAPS ? (int)e.half : MOST_TAPS;
        V f = u - c, nearest = Q::clamp(n - c, -e.half, e.half);
        for (int d = -taps; d <= taps; d++) {
            weight[taps + d] = Q::exp_negative(-e.kappa * ((T)d - nearest) * ((T)d + nearest - 2 * f));
            total += weight[taps + d];
        }
        return c + passed(weight, taps, noise * total);
    }
};

}  // namespace jsc
