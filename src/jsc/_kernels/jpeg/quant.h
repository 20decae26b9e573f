// The soft quantiser (softquant.h) on rows of numbers: entry j of a table belongs to column j.
#pragma once
#include "jpeg/softquant.h"

namespace jsc {

// Rows of `period` numbers, entry j for column j. Columns are taken by eights, as rows of a pack; what
// is left over (and short periods) number by number; period 1 is contiguous.
template <class T>
struct QuantizeRows {
    template <class I>
    JSC_INLINE void run(const T *z, T *y, ptrdiff_t rows, ptrdiff_t period, const T *entries) {
        typedef SoftQuant<I, T> Q;
        typedef Vec<I, T> V;
        constexpr int L = lanes<I, T>;
        const QuantEntry<T> *e = (const QuantEntry<T> *)entries;
        if (period == 1) {
            for (ptrdiff_t i = 0; i < rows; i += L) {
                const bool whole = i + L <= rows;
                const int left = (int)(rows - i);
                V v = whole ? load<V>(z + i) : load_partial<V>(z + i, left);
                Q::template each<false>(
                    e, 1, [&](int, auto quantize) __attribute__((always_inline)) { v = quantize(v).value; });
                if (whole) store(y + i, v);
                else store_partial(y + i, v, left);
            }
            return;
        }
        typedef Pack<I, T> P;
        for (ptrdiff_t i = 0; i < rows; i += L) {
            const T *from[L];
            T *to[L];
            for (int l = 0; l < L; l++) {
                ptrdiff_t row = i + l < rows ? i + l : rows - 1;  // spare lanes repeat the last row
                from[l] = z + row * period, to[l] = y + row * period;
            }
            for (ptrdiff_t j = 0; j < period; j += 8) {
                const int width = period - j < 8 ? (int)(period - j) : 8;
                V v[8];
                P::load_columns(from, j, width, v);
                Q::template each<false>(e + j, width,
                                        [&](int k, auto quantize)
                                            __attribute__((always_inline)) { v[k] = quantize(v[k]).value; });
                P::store_columns(to, j, width, v);
            }
        }
    }
};

// dz = g dQ/dz; the gradients of q (at constant kappa) and kappa, summed over the rows, go to
// partial (period, 2). Sums run over SUMS interleaved rows, then over those in double, so that
// they do not depend on the width of the vectors. partial may be null.
template <class T>
struct QuantizeRowsBackward {
    template <class I>
    JSC_INLINE void run(const T *g, const T *z, T *dz, ptrdiff_t rows, ptrdiff_t period, const T *entries,
                        double *partial) {
        typedef SoftQuant<I, T> Q;
        typedef Pack<I, T> P;
        typedef Vec<I, T> V;
        constexpr int L = lanes<I, T>;
        const QuantEntry<T> *e = (const QuantEntry<T> *)entries;
        for (ptrdiff_t j = 0; j < period; j += 8) {
            const int width = period - j < 8 ? (int)(period - j) : 8;
            alignas(64) T sums[8][2][SUMS<T>] = {};
            for (ptrdiff_t i = 0; i < rows; i += L) {
                const T *from[L], *upstream[L];
                T *to[L] = {};
                V v[8], up[8];
                if (period == 1) {
                    const bool whole = i + L <= rows;
                    v[0] = whole ? load<V>(z + i) : load_partial<V>(z + i, (int)(rows - i));
                    up[0] = whole ? load<V>(g + i) : load_partial<V>(g + i, (int)(rows - i));
                } else {
                    for (int l = 0; l < L; l++) {
                        ptrdiff_t row = i + l < rows ? i + l : rows - 1;
                        from[l] = z + row * period, upstream[l] = g + row * period, to[l] = dz + row * period;
                    }
                    P::load_columns(from, j, width, v);
                    P::load_columns(upstream, j, width, up);
                }
                Q::template each<true>(e + j, width,
                                       [&](int k, auto quantize) __attribute__((always_inline)) {
                                           const auto answer = quantize(v[k]);
                                           v[k] = up[k] * answer.slope;
                                           V dq = up[k] * answer.dq, dkappa = up[k] * answer.dkappa;
                                           for (int l = (int)(rows - i); l < L; l++) dq[l] = dkappa[l] = 0;
                                           T *sum = sums[k][0] + i % SUMS<T>;
                                           store(sum, load<V>(sum) + dq);
                                           store(sum + SUMS<T>, load<V>(sum + SUMS<T>) + dkappa);
                                       });
                if (period != 1) P::store_columns(to, j, width, v);
                else if (i + L <= rows) store(dz + i, v[0]);
                else store_partial(dz + i, v[0], (int)(rows - i));
            }
            if (!partial) continue;
            for (int k = 0; k < width; k++)
                for (int part = 0; part < 2; part++) {
                    double total = 0;
                    for (int l = 0; l < SUMS<T>; l++) total += sums[k][part][l];
                    partial[2 * (j + k) + part] = total;
                }
        }
    }
};

template <class T>
inline void quantize_rows(int isa, const T *z, T *y, ptrdiff_t rows, ptrdiff_t period, const T *entries) {
    dispatch<QuantizeRows<T>>(isa, z, y, rows, period, entries);
}
template <class T>
inline void quantize_rows_backward(int isa, const T *g, const T *z, T *dz, ptrdiff_t rows, ptrdiff_t period,
                                   const T *entries, double *partial) {
    dispatch<QuantizeRowsBackward<T>>(isa, g, z, dz, rows, period, entries, partial);
}

}  // namespace jsc
