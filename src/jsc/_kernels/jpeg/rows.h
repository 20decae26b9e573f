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

    // A colour transform of three channels, as in jpeg.h. It is a copy: what is written to a row might be one
    // of its numbers, as far as the compiler knows.
    struct Matrix {
        T m[12];
        inline __attribute__((always_inline)) explicit Matrix(const T *from) {
#pragma GCC unroll 12
            for (int i = 0; i < 12; i++) m[i] = from[i];
        }
        inline __attribute__((always_inline)) V row(int i, V a, V b, V c) const {
            return m[9 + i] + a * m[3 * i] + b * m[3 * i + 1] + c * m[3 * i + 2];
        }
    };

    // Three rows (or one) by a colour transform.
    JSC_INLINE void recolour(int channels, const T *const in[3], T *const out[3], ptrdiff_t n, const T *m) {
        const T *x = in[0];
        T *to = out[0];
        if (channels == 1) {
            const T m0 = m[0], m9 = m[9];
            return each(n, [=](ptrdiff_t i, int count) __attribute__((always_inline)) {
                put(to + i, get(x + i, count) * m0 + m9, count);
            });
        }
        const T *y = in[1], *z = in[2];
        T *second = out[1], *third = out[2];
        const Matrix k = Matrix(m);
        each(n, [=](ptrdiff_t i, int count) __attribute__((always_inline)) {
            V a = get(x + i, count), b = get(y + i, count), c = get(z + i, count);
            put(to + i, k.row(0, a, b, c), count);
            put(second + i, k.row(1, a, b, c), count);
            put(third + i, k.row(2, a, b, c), count);
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
    // Repeats both ends of a row of n samples, for which there is room: what the next two read.
    JSC_INLINE void repeat_ends(T *c, ptrdiff_t n) { c[-1] = c[0], c[n] = c[n - 1]; }
    // A vector of samples -> two of pixels.
    JSC_INLINE void interpolate(const T *c, V &a, V &b) {
        V here = (T)0.75 * load<V>(c);
        mix(here + (T)0.25 * load<V>(c - 1), here + (T)0.25 * load<V>(c + 1), a, b, Lanes());
    }
    // n samples -> 2 n.
    JSC_INLINE void interpolate(const T *c, T *to, ptrdiff_t n) {
        for (ptrdiff_t i = 0; i < n; i += L) {
            V a, b;
            interpolate(c + i, a, b);
            store(to + 2 * i, a), store(to + 2 * i + L, b);
        }
    }

    // Y and samples of Cb and Cr, of which `widen` makes two vectors of one -> three rows.
    template <class Widen>
    JSC_INLINE ptrdiff_t recolour_widened(const T *luma, const T *const chroma[2], T *const out[3],
                                          ptrdiff_t n, const T *m, Widen widen) {
        const Matrix k = Matrix(m);
        const T *cb = chroma[0], *cr = chroma[1];
        T *x = out[0], *y = out[1], *z = out[2];
        ptrdiff_t i = 0;
        for (; i + 2 * L <= n; i += 2 * L) {
            V b[2], r[2];
            widen(cb + i / 2, b[0], b[1]), widen(cr + i / 2, r[0], r[1]);
#pragma GCC unroll 2
            for (int j = 0; j < 2; j++) {
                const V a = load<V>(luma + i + j * L);
                store(x + i + j * L, k.row(0, a, b[j], r[j]));
                store(y + i + j * L, k.row(1, a, b[j], r[j]));
                store(z + i + j * L, k.row(2, a, b[j], r[j]));
            }
        }
        return i;
    }
    // Y and samples of Cb and Cr, their ends repeated -> three rows of pixels. This and the next two are
    // whole steps in registers; they do as many pixels of n as fill pairs of vectors, and say how many.
    JSC_INLINE ptrdiff_t recolour_interpolated(const T *luma, const T *const chroma[2], T *const out[3],
                                               ptrdiff_t n, const T *m) {
        const auto interpolated = [](const T *from, V &a, V &b)
                                      __attribute__((always_inline)) { interpolate(from, a, b); };
        return recolour_widened(luma, chroma, out, n, m, interpolated);
    }
    // The same of samples that are repeated, times weight: the adjoint of averages.
    JSC_INLINE ptrdiff_t recolour_repeated(const T *luma, const T *const chroma[2], T *const out[3],
                                           ptrdiff_t n, const T *m, T weight) {
        const auto repeated = [=](const T *from, V &a, V &b) __attribute__((always_inline)) {
            const V c = load<V>(from) * weight;
            mix(c, c, a, b, Lanes());
        };
        return recolour_widened(luma, chroma, out, n, m, repeated);
    }
    // One row of pixels, or two (`second` not null) -> their Y, and one row of samples of Cb and Cr: the
    // colours of averages, `weight` times the sums of pixels. They round otherwise than averages of colours,
    // which the rest of a row gets; so that bits are those of every instruction set, as many pixels are done
    // whatever the length of a vector.
    JSC_INLINE ptrdiff_t recolour_averaged(const T *const first[3], const T *const *second, T *const luma[2],
                                           T *const chroma[2], ptrdiff_t n, const T *m, T weight) {
        static_assert(32 % (2 * L) == 0, "whole pairs of vectors");
        const Matrix k = Matrix(m);
        ptrdiff_t i = 0;
        for (; i < n / 32 * 32; i += 2 * L) {
            V a[3], b[3];
#pragma GCC unroll 3
            for (int c = 0; c < 3; c++) a[c] = load<V>(first[c] + i), b[c] = load<V>(first[c] + i + L);
            store(luma[0] + i, k.row(0, a[0], a[1], a[2]));
            store(luma[0] + i + L, k.row(0, b[0], b[1], b[2]));
            if (second) {
                V under[3], beside[3];
#pragma GCC unroll 3
                for (int c = 0; c < 3; c++) {
                    under[c] = load<V>(second[c] + i), beside[c] = load<V>(second[c] + i + L);
                    a[c] = a[c] + under[c], b[c] = b[c] + beside[c];
                }
                store(luma[1] + i, k.row(0, under[0], under[1], under[2]));
                store(luma[1] + i + L, k.row(0, beside[0], beside[1], beside[2]));
            }
#pragma GCC unroll 3
            for (int c = 0; c < 3; c++) {
                V even, odd;
                separate(a[c], b[c], even, odd, Lanes());
                a[c] = (even + odd) * weight;
            }
            store(chroma[0] + i / 2, k.row(1, a[0], a[1], a[2]));
            store(chroma[1] + i / 2, k.row(2, a[0], a[1], a[2]));
        }
        return i;
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
