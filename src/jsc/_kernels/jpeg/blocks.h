// The blocks of a band's plane: DCT, quantiser and inverse DCT in place, a pack of blocks at a time
// (layout: dct.h), and their gradients. Lanes without a block take an empty one beside the plane: it holds
// zeros, so that nothing is added to the sums.
#pragma once
#include "jpeg/call.h"
#include "jpeg/draw.h"

namespace jsc {

// Backward: which gradients are wanted.
enum { GRADIENT_X = 1, GRADIENT_TABLES = 2 };

// The pixels that a band will write, fetched a few lines at a step while its blocks are transformed: they
// would all be waited for at the end. (Those that are read next the processor sees coming.)
template <class T>
struct Ahead {
    T *rows[3];
    int channels = 0;
    ptrdiff_t numbers, pace, at = 0;

    // For bands of `steps` steps.
    Ahead(const JpegCall &c, ptrdiff_t steps) : numbers(8 * c.v * c.deep() * c.width) {
        constexpr ptrdiff_t line = 64 / sizeof(T);
        pace = (numbers / steps / line + 1) * line;
    }
    inline __attribute__((always_inline)) void band(const JpegCall &c, T *y, ptrdiff_t image,
                                                    ptrdiff_t band) {
        for (channels = 0; channels < c.channels; channels++)
            rows[channels] = y + (image * c.channels + channels) * c.height * c.width + band * numbers;
    }
    inline __attribute__((always_inline)) void step() {
        const ptrdiff_t end = at + pace < numbers ? at + pace : numbers;
        for (; at < end; at += 64 / sizeof(T))
            for (int k = 0; k < channels; k++) __builtin_prefetch(rows[k] + at, 1, 2);
    }
};

template <class I, class T>
struct BlockCoder {
    typedef Pack<I, T> P;
    typedef SoftQuant<I, T> Q;
    typedef LevelDraw<I, T> Draw;
    typedef Vec<I, T> V;
    typedef QuantEntry<T> Entry;
    static constexpr int L = lanes<I, T>;

    struct Part {
        ptrdiff_t count, columns, pitch, empty;  // blocks, blocks a row, numbers a row, column of zeros
        uint64_t number;                         // of the first block
        ptrdiff_t first_plane, between;          // blocks of Cb, and those between them and Cr's
        int table;                               // 0 of Y, 1 of Cb and Cr
    };

    JSC_INLINE void corners(const Part &p, T *plane, ptrdiff_t b, T *corner[L]) {
        ptrdiff_t row = b / p.columns, column = b - row * p.columns;
        for (int l = 0; l < L; l++) {
            corner[l] = plane + (b + l < p.count ? 8 * (row * p.pitch + column) : p.empty);
            if (++column == p.columns) column = 0, row++;
        }
    }
    JSC_INLINE void empty(const Part &p, T *plane) {
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < 8; j++) plane[p.empty + i * p.pitch + j] = 0;
    }
    static constexpr int STEPS = 8;  // of an analysis and of a synthesis
    JSC_INLINE void analyse(const Part &p, T *const corner[L], T *z, Ahead<T> &ahead) {
        for (int i = 0; i < 8; i++) {
            V v[8];
            ahead.step();
            P::load_row(corner, i * p.pitch, v);
            dct8(v);
#pragma GCC unroll 8
            for (int k = 0; k < 8; k++) store(z + (8 * i + k) * L, v[k]);
        }
        transform_columns<false, V>(z);
    }
    JSC_INLINE void synthesise(const Part &p, T *const corner[L], T *z, Ahead<T> &ahead) {
        transform_columns<true, V>(z);
        for (int i = 0; i < 8; i++) {
            V v[8];
            ahead.step();
#pragma GCC unroll 8
            for (int k = 0; k < 8; k++) v[k] = load<V>(z + (8 * i + k) * L);
            idct8(v);
            P::store_row(corner, i * p.pitch, v);
        }
    }

    // One round of the quantiser: from z to `to`, which may be the same.
    JSC_INLINE void quantise(const JpegCall &c, const Part &p, ptrdiff_t b, int round, const T *z, T *to) {
        const ptrdiff_t table = c.table(round, p.table);
        if (c.draws) {
            typename Draw::Numbers numbers;
            for (int l = 0; l < L; l++) {
                const bool second = p.table == 1 && b + l >= p.first_plane;
                numbers.set(l, p.number + b + l + (second ? p.between : 0));
            }
            return Draw::run(c.seed, numbers, round, (const Entry *)c.drawn + table, z, to);
        }
        const Entry *e = (const Entry *)c.tables + table;
        Q::template each<false>(e, 64, [&](int i, auto quantize) __attribute__((always_inline)) {
            store(to + i * L, quantize(load<V>(z + i * L)).value);
        });
    }
    JSC_INLINE void forward(const JpegCall &c, const Part &p, T *plane, Ahead<T> &ahead) {
        alignas(64) T z[64 * L];
        empty(p, plane);
        for (ptrdiff_t b = 0; b < p.count; b += L) {
            T *corner[L];
            corners(p, plane, b, corner);
            analyse(p, corner, z, ahead);
            for (int round = 0; round < c.rounds; round++) quantise(c, p, b, round, z, z);
            synthesise(p, corner, z, ahead);
        }
    }

    // z: room for the coefficients before each round. sums: (rounds, tables, 64, 2, SUMS) of the gradients of
    // q and kappa; a block's place among the SUMS does not depend on L.
    JSC_INLINE void backward(const JpegCall &c, const Part &p, T *plane, T *gradient, T *z, T *sums,
                             bool to_pixels, Ahead<T> &ahead) {
        constexpr int S = SUMS<T>;
        alignas(64) T dz[64 * L];
        empty(p, plane), empty(p, gradient);
        for (ptrdiff_t b = 0; b < p.count; b += L) {
            T *corner[L];
            corners(p, plane, b, corner), analyse(p, corner, z, ahead);
            for (int round = 0; round < c.rounds - 1; round++)
                quantise(c, p, b, round, z + round * 64 * L, z + (round + 1) * 64 * L);
            corners(p, gradient, b, corner), analyse(p, corner, dz, ahead);
            for (int round = c.rounds - 1; round >= 0; round--) {
                const ptrdiff_t table = c.table(round, p.table);
                const Entry *e = (const Entry *)c.tables + table;
                T *sum = sums + table * 2 * S + b % S;
                Q::template each<true>(e, 64, [&](int i, auto quantize) __attribute__((always_inline)) {
                    const V up = load<V>(dz + i * L);
                    const auto answer = quantize(load<V>(z + (round * 64 + i) * L));
                    store(dz + i * L, up * answer.slope);
                    T *at = sum + 2 * S * i;
                    store(at, load<V>(at) + up * answer.dq);
                    store(at + S, load<V>(at + S) + up * answer.dkappa);
                });
            }
            if (to_pixels) synthesise(p, corner, dz, ahead);
        }
    }
};

}  // namespace jsc
