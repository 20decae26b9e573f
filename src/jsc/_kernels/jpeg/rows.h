// Steps of the JPEG layer that go along the rows of a band (bands.h): colours, chroma's averages over pixels
// and its interpolation, and the adjoint of each. Rows lie one after the other in scratch memory; lanes hold
// neighbouring pixels. A row of n numbers ends with a vector that overlaps the one before it, so that no
// memory behind it is read or written: input and output of every step are different memory.
//
// Averages:       c[i] = (x[2i] + x[2i+1]) / 2 in each direction that is subsampled.
// Interpolation:  x[2i] = (3 c[i] + c[i-1]) / 4,  x[2i+1] = (3 c[i] + c[i+1]) / 4 with the edges repeated,
//                 libjpeg's "fancy upsampling": a triangle of weights over the samples.
// Its adjoint:    c[i] = (3 (x[2i] + x[2i+1]) + x[2i-1] + x[2i+2]) / 4 with the edges repeated.
#pragma once
#include "jpeg/dct.h"

namespace jsc {

template <class I, class T>
struct Rows {
    typedef Vec<I, T> V;
    static constexpr int L = lanes<I, T>;

    // f(at, count) for each vector of a row: of all its lanes, or of fewer numbers where the row is shorter.
    template <class F>
    JSC_INLINE void each(ptrdiff_t n, F f) {
        ptrdiff_t i = 0;
        for (; i + L <= n; i += L) f(i, L);
        if (i == n) return;
        if (n >= L) f(n - L, L);
        else f(0, (int)n);
    }
    JSC_INLINE V get(const T *from, int count) {
        return count == L ? load<V>(from) : load_partial<V>(from, count);
    }
    JSC_INLINE void put(T *to, V v, int count) {
        if (count == L) store(to, v);
        else store_partial(to, v, count);
    }

    // Three rows (or one) by a colour transform: 12 numbers, as in jpeg.h. Copied first: what is written to a
    // row might be one of them, as far as the compiler knows.
    JSC_INLINE void recolour(int channels, const T *const in[3], T *const out[3], ptrdiff_t n, const T *m) {
        const T *x = in[0];
        T *to = out[0];
        const T m0 = m[0], m9 = m[9];
        if (channels == 1)
            return each(n, [=](ptrdiff_t i, int count) __attribute__((always_inline)) {
                put(to + i, get(x + i, count) * m0 + m9, count);
            });
        const T *y = in[1], *z = in[2];
        T *second = out[1], *third = out[2];
        const T m1 = m[1], m2 = m[2], m3 = m[3], m4 = m[4], m5 = m[5], m6 = m[6], m7 = m[7], m8 = m[8];
        const T m10 = m[10], m11 = m[11];
        each(n, [=](ptrdiff_t i, int count) __attribute__((always_inline)) {
            V a = get(x + i, count), b = get(y + i, count), c = get(z + i, count);
            put(to + i, m9 + a * m0 + b * m1 + c * m2, count);
            put(second + i, m10 + a * m3 + b * m4 + c * m5, count);
            put(third + i, m11 + a * m6 + b * m7 + c * m8, count);
        });
    }
    JSC_INLINE void fill(T *row, ptrdiff_t first, ptrdiff_t end, T value) {
        for (ptrdiff_t i = first; i < end; i++) row[i] = value;
    }

    // to = weight * from.
    JSC_INLINE void scale(const T *from, T *to, ptrdiff_t n, T weight) {
        each(n, [=](ptrdiff_t i, int count)
                    __attribute__((always_inline)) { put(to + i, get(from + i, count) * weight, count); });
    }
    JSC_INLINE void add(const T *from, T *to, ptrdiff_t n) {  // in place: without overlap
        ptrdiff_t i = 0;
        for (; i + L <= n; i += L) store(to + i, load<V>(to + i) + load<V>(from + i));
        for (; i < n; i++) to[i] += from[i];
    }

    // Two vectors of a row -> its even and its odd numbers, and back.
    template <size_t... l>
    JSC_INLINE void separate(V a, V b, V &even, V &odd, std::index_sequence<l...>) {
        even = shuffle<(int)(2 * l)...>(a, b), odd = shuffle<(int)(2 * l + 1)...>(a, b);
    }
    template <size_t... l>
    JSC_INLINE void mix(V even, V odd, V &a, V &b, std::index_sequence<l...>) {
        a = shuffle<(int)(l / 2 + l % 2 * L)...>(even, odd);
        b = shuffle<(int)(L / 2 + l / 2 + l % 2 * L)...>(even, odd);
    }
    typedef std::make_index_sequence<L> Lanes;

    // Sums of pairs of `first` (+ `second`, the row below it, unless null), times weight: n sums. Rows of
    // scratch may be read and written up to a whole vector: they are made so long.
    JSC_INLINE void average(const T *first, const T *second, T *to, ptrdiff_t n, T weight) {
        for (ptrdiff_t i = 0; i < n; i += L) {
            V even, odd, below, beside;
            separate(load<V>(first + 2 * i), load<V>(first + 2 * i + L), even, odd, Lanes());
            V sum = even + odd;
            if (second) {
                separate(load<V>(second + 2 * i), load<V>(second + 2 * i + L), below, beside, Lanes());
                sum = sum + below + beside;
            }
            store(to + i, sum * weight);
        }
    }
    // Each number twice, times weight: the adjoint of `average` along a row.
    JSC_INLINE void repeat(const T *from, T *to, ptrdiff_t n, T weight) {
        for (ptrdiff_t i = 0; i < n; i += L) {
            V a, b, c = load<V>(from + i) * weight;
            mix(c, c, a, b, Lanes());
            store(to + 2 * i, a), store(to + 2 * i + L, b);
        }
    }
    // (3 near + far) / 4, or near alone.
    JSC_INLINE void blend(const T *near, const T *far, T *to, ptrdiff_t n) {
        for (ptrdiff_t i = 0; i < n; i += L)
            store(to + i, far ? (T)0.75 * load<V>(near + i) + (T)0.25 * load<V>(far + i) : load<V>(near + i));
    }
    // n samples -> 2 n. There is room for a number before `c` and behind it.
    JSC_INLINE void interpolate(T *c, T *to, ptrdiff_t n) {
        c[-1] = c[0], c[n] = c[n - 1];
        for (ptrdiff_t i = 0; i < n; i += L) {
            V here = (T)0.75 * load<V>(c + i), a, b;
            mix(here + (T)0.25 * load<V>(c + i - 1), here + (T)0.25 * load<V>(c + i + 1), a, b, Lanes());
            store(to + 2 * i, a), store(to + 2 * i + L, b);
        }
    }
    // The adjoint of `blend` over the rows above, at, below and under a sample's two rows.
    JSC_INLINE void unblend(const T *above, const T *first, const T *second, const T *under, T *to,
                            ptrdiff_t n) {
        for (ptrdiff_t i = 0; i < n; i += L)
            store(to + i, (T)0.75 * (load<V>(first + i) + load<V>(second + i)) +
                              (T)0.25 * (load<V>(above + i) + load<V>(under + i)));
    }
    // The adjoint of `interpolate`: 2 n numbers -> n samples, with room as there.
    JSC_INLINE void gather(T *x, T *to, ptrdiff_t n) {
        x[-1] = x[0], x[2 * n] = x[2 * n - 1];
        for (ptrdiff_t i = 0; i < n; i += L) {
            V before, first, second, after;
            separate(load<V>(x + 2 * i - 1), load<V>(x + 2 * i - 1 + L), before, first, Lanes());
            separate(load<V>(x + 2 * i + 1), load<V>(x + 2 * i + 1 + L), second, after, Lanes());
            store(to + i, (T)0.75 * (first + second) + (T)0.25 * (before + after));
        }
    }
};

}  // namespace jsc
