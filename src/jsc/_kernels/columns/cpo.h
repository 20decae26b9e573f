// CPO (Compressed Pattern Overlap): every non-zero of a channel stored once, column by column in stream
// order (columns.h), rows from top to bottom.
//
//   DA  the values
//   IN  i Kw + c0: i the padded row, c0 the kernel column through which the leftmost window reads it
//   Ptr the number of non-zeros of the pattern before each window
//
// IN and Ptr are 16-bit where the shape lets them fit (Index = uint16_t), 32-bit otherwise.
// Source: Amer et al., "High performance convolution using sparsity and patterns for inference in deep
// convolutional neural networks", arXiv 2104.08314, with the general geometry of this package.
#pragma once
#include "columns/columns.h"

namespace jsc {

// ---- encode ----------------------------------------------------------------------------------------

template <class Word>
struct CpoFormat {
    using Index = Word;
    static constexpr bool has_words = false;  // entries of IN that are not one for each value

    // Indices of up to 64 rows from i on.
    template <class I>
    JSC_INLINE int32_t append(const ColumnPlan *plan, ptrdiff_t k, ptrdiff_t i, uint64_t rows, Index *IN,
                              int32_t n) {
        int32_t code = (int32_t)((i + plan->Ph) * plan->Kw + plan->kernel_column[k]), Kw = (int32_t)plan->Kw;
        if constexpr (I::bytes == 64) {
            using V = VectorOf<int32_t, 64>::type;
            V codes = V{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} * Kw + code;
            for (; rows; rows >>= 16, codes += 16 * Kw) {
                const uint32_t bits = rows & 0xffff;
                store(IN + n, __builtin_convertvector(compress_lanes(codes, bits),
                                                      typename VectorOf<Index, 16 * sizeof(Index)>::type));
                n += __builtin_popcount(bits);
            }
        } else {
            for (; rows; rows &= rows - 1) IN[n++] = (Index)(code + __builtin_ctzll(rows) * Kw);
        }
        return n;
    }
};

// ---- decode ----------------------------------------------------------------------------------------

// The start of every column from Ptr and IN, checking everything; false when they contradict the shape.
template <class Index>
inline bool cpo_locate(const ColumnPlan *plan, const Index *ptr, const Index *IN, int64_t total,
                       int32_t *start) {
    if (!read_ptr(plan, ptr, total, start)) return false;
    for (ptrdiff_t a = 0, b; a < plan->columns; a = b) {
        b = group_end(plan, a);
        int32_t n = start[a], end = start[b];
        for (ptrdiff_t t = a; t < b; t++) {
            start[t] = n;
            int64_t above = plan->Ph - 1;
            for (; n < end && IN[n] >= 0 && IN[n] % plan->Kw == plan->kernel_column[t]; n++) {
                int64_t i = IN[n] / plan->Kw;
                if (i <= above || i >= plan->H + plan->Ph) return false;
                above = i;
            }
        }
        if (n != end) return false;
    }
    return true;
}

template <class T, class Index>
inline void cpo_scatter(const ColumnPlan *plan, const int32_t *start, const T *DA, const Index *IN, T *x) {
    for (ptrdiff_t t = 0; t < plan->columns; t++)
        for (int32_t n = start[t]; n < start[t + 1]; n++)
            x[(IN[n] / plan->Kw - plan->Ph) * plan->W + plan->column[t]] = DA[n];
}

// ---- convolution -----------------------------------------------------------------------------------

// Which rows of every column are stored, a bit each: rows (columns, words), from trusted streams.
template <class Index>
struct CpoRows {
    template <class I>
    JSC_INLINE void run(const ColumnPlan *plan, const int32_t *start, const Index *IN, uint64_t *rows) {
        const ColumnPlan p = *plan;
        const ptrdiff_t words = p.words();
        const uint32_t reciprocal = (uint32_t)((65536 + p.Kw - 1) / p.Kw);
        for (ptrdiff_t k = 0; k < p.columns; k++, rows += words) {
            const int32_t code = (int32_t)(p.Ph * p.Kw + p.kernel_column[k]), end = start[k + 1];
            if (words == 1 && p.Kw <= 32) {  // code / Kw without a division: exact for 64 Kw (Kw - 1) < 2^16
                Words bits = {};
                for (int32_t n = start[k]; n < end; n += 8) {
                    using V = VectorOf<uint32_t, 32>::type;
                    V row = __builtin_convertvector(
                                load<typename VectorOf<Index, 8 * sizeof(Index)>::type>(IN + n), V) -
                            (uint32_t)code;
                    row = (row * reciprocal >> 16) & 63;
                    const V place = V{0, 1, 2, 3, 4, 5, 6, 7};
                    const V one = (V)(place < (uint32_t)(end - n)) & 1;
                    bits |= __builtin_convertvector(one, Words) << __builtin_convertvector(row, Words);
                }
                *rows = or_lanes(bits);
            } else {
                for (ptrdiff_t w = 0; w < words; w++) rows[w] = 0;
                for (int32_t n = start[k]; n < end; n++) {
                    uint32_t row = (uint32_t)(IN[n] - code) / (uint32_t)p.Kw;
                    rows[row / 64] |= 1ull << row % 64;
                }
            }
        }
    }
};

// ---- the format as a policy --------------------------------------------------------------------------

template <class Index>
struct CpoStreams : CpoFormat<Index> {
    using Rows = CpoRows<Index>;
    // Whether the arrays agree with the shape; x is left alone where they do not.
    template <class T>
    static bool decode(const ColumnPlan *plan, const Index *ptr, const T *DA, const Index *IN, int64_t values,
                       int64_t, int32_t *start, int32_t *, T *x) {
        if (!cpo_locate(plan, ptr, IN, values, start)) return false;
        cpo_scatter(plan, start, DA, IN, x);
        return true;
    }
};

}  // namespace jsc
