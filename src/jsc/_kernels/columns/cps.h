// CPS (Compressed Pattern Sets): CPO's values and Ptr; a column's rows are cut into sets of 4 (rows
// 0-3, 4-7, ... of the map without padding) and the index stream has one word per non-empty set:
//
//   IN  (rank * sets + set) << 4 | pattern     bit r of the pattern: row 4 set + r is not zero
//
// with rank the column's place in its group and sets = ceil(H / 4). The pattern says how many values
// the word stands for, so the stream delimits itself. (The paper's form spends 1, 2, 2, 2 words on a set
// of 1, 2, 3, 4 non-zeros and needs a flag to be decodable; jsc.formats reports its size as well.)
// Words are 16-bit where the shape lets them fit (Index = uint16_t), 32-bit otherwise.
// Source: Amer et al., arXiv 2104.08314; the packed word and the general geometry are this package's.
#pragma once
#include "columns/columns.h"

namespace jsc {

constexpr ptrdiff_t CPS_ROWS = 4;

// ---- encode ----------------------------------------------------------------------------------------

template <class Word>
struct CpsFormat {
    using Index = Word;
    static constexpr bool has_words = true;  // entries of IN that are not one for each value

    // Words of up to 16 sets, those of rows i .. i + 64.
    template <class I>
    JSC_INLINE int32_t append(const ColumnPlan *plan, ptrdiff_t k, ptrdiff_t i, uint64_t rows, Index *IN,
                              int32_t w) {
        const ptrdiff_t sets = (plan->H + CPS_ROWS - 1) / CPS_ROWS;
        int32_t set = (int32_t)(plan->rank[k] * sets + i / CPS_ROWS);
        if constexpr (I::bytes == 64) {
            using V = VectorOf<int32_t, 64>::type;
            const int32_t l = (int32_t)rows, h = (int32_t)(rows >> 32);
            const V both = {l, l, l, l, l, l, l, l, h, h, h, h, h, h, h, h};
            const V pattern = both >> V{0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28} & 15;
            const V word =
                (V{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + set) << CPS_ROWS | pattern;
            const uint32_t some = nonzero_mask(__builtin_convertvector(pattern, VectorOf<float, 64>::type));
            store(IN + w, __builtin_convertvector(compress_lanes(word, some),
                                                  typename VectorOf<Index, 16 * sizeof(Index)>::type));
            return w + __builtin_popcount(some);
        }
        for (; rows; rows >>= CPS_ROWS, set++)
            if (rows & 15) IN[w++] = (Index)(set << CPS_ROWS | (rows & 15));
        return w;
    }
};

// ---- decode ----------------------------------------------------------------------------------------

// The starts of every column from Ptr and IN, checking everything; false when they contradict the shape.
template <class Index>
inline bool cps_locate(const ColumnPlan *plan, const Index *ptr, const Index *IN, int64_t values,
                       int64_t words, int32_t *start, int32_t *word) {
    if (!read_ptr(plan, ptr, values, start)) return false;
    const int64_t sets = (plan->H + CPS_ROWS - 1) / CPS_ROWS;
    int64_t w = 0;
    word[0] = 0;
    for (ptrdiff_t a = 0, b; a < plan->columns; a = b) {
        b = group_end(plan, a);
        int32_t n = start[a], end = start[b];
        for (ptrdiff_t t = a; t < b; t++) {
            start[t] = n;
            word[t] = (int32_t)w;
            int64_t above = (t - a) * sets - 1, below = (t - a + 1) * sets;
            for (; w < words && n < end && IN[w] >= 0 && (IN[w] >> CPS_ROWS) < below; w++) {
                int64_t set = IN[w] >> CPS_ROWS;
                uint32_t pattern = (uint32_t)IN[w] & 15;
                if (set <= above || !pattern) return false;
                if ((set - (t - a) * sets) * CPS_ROWS + 31 - __builtin_clz(pattern) >= plan->H) return false;
                above = set;
                n += __builtin_popcount(pattern);
            }
        }
        if (n != end) return false;
    }
    word[plan->columns] = (int32_t)w;
    return w == words;
}

template <class T, class Index>
inline void cps_scatter(const ColumnPlan *plan, const int32_t *word, const T *DA, const Index *IN, T *x) {
    const ptrdiff_t sets = (plan->H + CPS_ROWS - 1) / CPS_ROWS;
    for (ptrdiff_t t = 0; t < plan->columns; t++)
        for (int32_t w = word[t]; w < word[t + 1]; w++) {
            ptrdiff_t i = ((IN[w] >> CPS_ROWS) - plan->rank[t] * sets) * CPS_ROWS;
            for (uint32_t pattern = (uint32_t)IN[w] & 15; pattern; pattern &= pattern - 1)
                x[(i + __builtin_ctz(pattern)) * plan->W + plan->column[t]] = *DA++;
        }
}

// ---- convolution -----------------------------------------------------------------------------------

// Which rows of every column are stored, a bit each: rows (columns, words), from trusted streams.
template <class Index>
struct CpsRows {
    template <class I>
    JSC_INLINE void run(const ColumnPlan *plan, const int32_t *word, const Index *IN, uint64_t *rows) {
        const ColumnPlan p = *plan;
        const ptrdiff_t words = p.words(), sets = (p.H + CPS_ROWS - 1) / CPS_ROWS;
        for (ptrdiff_t k = 0; k < p.columns; k++, rows += words) {
            const int32_t first = (int32_t)(p.rank[k] * sets), end = word[k + 1];
            if (words == 1) {
                Words bits = {};
                for (int32_t w = word[k]; w < end; w += 8) {
                    using V = VectorOf<uint32_t, 32>::type;
                    const V code = __builtin_convertvector(
                        load<typename VectorOf<Index, 8 * sizeof(Index)>::type>(IN + w), V);
                    const V shift = ((code >> CPS_ROWS) - (uint32_t)first) * CPS_ROWS & 63;
                    const V place = V{0, 1, 2, 3, 4, 5, 6, 7};
                    const V pattern = (V)(place < (uint32_t)(end - w)) & code & 15;
                    bits |= __builtin_convertvector(pattern, Words) << __builtin_convertvector(shift, Words);
                }
                *rows = or_lanes(bits);
            } else {
                for (ptrdiff_t w = 0; w < words; w++) rows[w] = 0;
                for (int32_t w = word[k]; w < end; w++) {
                    const uint32_t set = (uint32_t)((IN[w] >> CPS_ROWS) - first);
                    rows[set / 16] |= (uint64_t)(IN[w] & 15) << set % 16 * CPS_ROWS;
                }
            }
        }
    }
};

// ---- the format as a policy --------------------------------------------------------------------------

template <class Index>
struct CpsStreams : CpsFormat<Index> {
    using Rows = CpsRows<Index>;
    // Whether the arrays agree with the shape; x is left alone where they do not.
    template <class T>
    static bool decode(const ColumnPlan *plan, const Index *ptr, const T *DA, const Index *IN, int64_t values,
                       int64_t words, int32_t *start, int32_t *word, T *x) {
        if (!cps_locate(plan, ptr, IN, values, words, start, word)) return false;
        cps_scatter(plan, word, DA, IN, x);
        return true;
    }
};

}  // namespace jsc
