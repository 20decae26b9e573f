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
#include "columns.h"

namespace jsc {

constexpr ptrdiff_t CPS_ROWS = 4;

// ---- encode ----------------------------------------------------------------------------------------

// Values and words of each column of a plane, as cursors (columns + 1) each; *values and *words of them.
template <class T>
struct CpsCount {
    template <class I>
    JSC_INLINE void run(const ColumnPlan *plan, const T *x, int32_t *start, int32_t *word, int64_t *values, int64_t *words) {
        using V = Vec<I, T>;
        constexpr int L = lanes<I, T>;
        const ptrdiff_t W = plan->W, H = plan->H;
        ptrdiff_t j = 0;
        for (; j + L <= W; j += L) {
            auto some = (V{} != V{}), all = some;
            for (ptrdiff_t i = 0; i < H; i += CPS_ROWS) {
                auto set = (V{} != V{});
                for (ptrdiff_t r = i; r < i + CPS_ROWS && r < H; r++) {
                    auto row = (load<V>(x + r * W + j) != 0);
                    set |= row;
                    all -= row;
                }
                some -= set;
            }
            for (int l = 0; l < L; l++) {
                int32_t t = plan->slot[j + l];
                if (t < 0) continue;
                start[t + 1] = (int32_t)all[l];
                word[t + 1] = (int32_t)some[l];
            }
        }
        for (; j < W; j++) {
            int32_t some = 0, all = 0, t = plan->slot[j];
            if (t < 0) continue;
            for (ptrdiff_t i = 0; i < H; i += CPS_ROWS) {
                int before = all;
                for (ptrdiff_t r = i; r < i + CPS_ROWS && r < H; r++) all += x[r * W + j] != 0;
                some += all != before;
            }
            start[t + 1] = all;
            word[t + 1] = some;
        }
        *values = counts_to_cursors(start, plan->columns);
        *words = counts_to_cursors(word, plan->columns);
    }
};

template <class T, class Index>
struct CpsFill {
    template <class I>
    JSC_INLINE void run(const ColumnPlan *plan, const T *x, int32_t *start, int32_t *word, T *DA, Index *IN) {
        const ColumnPlan p = *plan;
        const ptrdiff_t sets = (p.H + CPS_ROWS - 1) / CPS_ROWS;
        for (ptrdiff_t set = 0; set < sets; set++, x += CPS_ROWS * p.W) {
            ptrdiff_t rows = p.H - set * CPS_ROWS < CPS_ROWS ? p.H - set * CPS_ROWS : CPS_ROWS;
            for (ptrdiff_t j = 0; j < p.W; j++) {
                int32_t t = p.slot[j];
                if (t < 0) continue;
                uint32_t pattern = 0;
                for (ptrdiff_t r = 0; r < rows; r++) pattern |= (uint32_t)(x[r * p.W + j] != 0) << r;
                if (!pattern) continue;
                IN[word[t + 1]++] = (Index)((p.rank[t] * sets + set) << CPS_ROWS | pattern);
                int32_t place = start[t + 1];
                for (; pattern; pattern &= pattern - 1) DA[place++] = x[__builtin_ctz(pattern) * p.W + j];
                start[t + 1] = place;
            }
        }
    }
};

// ---- decode ----------------------------------------------------------------------------------------

// The starts of every column from Ptr and IN, checking everything; false when they contradict the shape.
template <class Index>
inline bool cps_locate(const ColumnPlan *plan, const Index *ptr, const Index *IN, int64_t values, int64_t words,
                       int32_t *start, int32_t *word) {
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

// Sets are merged without a branch per element: each of the 4 rows stores what the value cursor
// points at and the cursor moves on where the pattern says so. What a row without a non-zero stores is
// never read (its mask bit is clear); `values` therefore needs 3 elements of room at its end.
template <class T, class Index>
struct CpsMerge {
    template <class I>
    JSC_INLINE void run(const ColumnTask<T> *task, BandRows band) {
        const ColumnTask<T> t = *task;
        const ptrdiff_t C = t.C(), W = t.plan.W, columns = t.plan.columns, height = band.last - band.first;
        const ptrdiff_t sets = (t.plan.H + CPS_ROWS - 1) / CPS_ROWS;
        int32_t *words = t.cursor + columns * C;
        for (ptrdiff_t c0 = 0; c0 < C; c0 += CPC_SET) {
            const ptrdiff_t c1 = c0 + CPC_SET < C ? c0 + CPC_SET : C;
            uint64_t *set_mask = t.mask + c0 / CPC_SET * height * W;
            for (ptrdiff_t k = 0; k < columns; k++) {
                const ptrdiff_t first = t.plan.rank[k] * sets + band.first / CPS_ROWS, last = first + height / CPS_ROWS;
                const ptrdiff_t split = first + (band.split - band.first) / CPS_ROWS;
                uint64_t *mask = set_mask + t.plan.column[k];
                for (ptrdiff_t c = c0; c < c1; c++) {
                    const Index *IN = (const Index *)t.index + t.index_offset[c];
                    const T *DA = t.values + t.value_offset[c];
                    T *tile = t.tile + t.plan.column[k] * C + c;
                    int32_t n = t.cursor[k * C + c], w = words[k * C + c], next = n, next_word = w;
                    const int32_t end = t.index_start[c * (columns + 1) + k + 1];
                    for (; w < end; w++) {
                        const ptrdiff_t set = IN[w] >> CPS_ROWS;
                        const uint32_t pattern = (uint32_t)IN[w] & 15;
                        const int32_t after = n + __builtin_popcount(pattern);
                        if (set >= last && set >= split) break;
                        next = set < split ? after : next;
                        next_word = set < split ? w + 1 : next_word;
                        if (set < last) {
                            ptrdiff_t row = (set - first) * CPS_ROWS;
#pragma GCC unroll 4
                            for (int r = 0; r < CPS_ROWS; r++) {
                                const uint64_t bit = pattern >> r & 1;
                                mask[(row + r) * W] |= bit << (c - c0);
                                tile[(row + r) * W * C] = DA[n];
                                n += (int32_t)bit;
                            }
                        }
                        n = after;
                    }
                    t.cursor[k * C + c] = next;
                    words[k * C + c] = next_word;
                }
            }
        }
    }
};

template <class T, class Index>
struct CpsWalk {
    static constexpr ptrdiff_t unit = CPS_ROWS;
    static void seek(int, const ColumnTask<T> *t, ptrdiff_t row) {
        const ptrdiff_t columns = t->plan.columns, C = t->C(), sets = (t->plan.H + CPS_ROWS - 1) / CPS_ROWS;
        for (ptrdiff_t c = 0; c < C; c++) {
            const Index *IN = (const Index *)t->index + t->index_offset[c];
            for (ptrdiff_t k = 0; k < columns; k++) {
                int32_t n = t->value_start[c * (columns + 1) + k], w = t->index_start[c * (columns + 1) + k];
                const int32_t end = t->index_start[c * (columns + 1) + k + 1];
                const ptrdiff_t first = t->plan.rank[k] * sets + row / CPS_ROWS;
                for (; w < end && (IN[w] >> CPS_ROWS) < first; w++) n += __builtin_popcount((uint32_t)IN[w] & 15);
                t->cursor[k * C + c] = n;
                t->cursor[(columns + k) * C + c] = w;
            }
        }
    }
    static void merge(int isa, const ColumnTask<T> *t, BandRows band) { dispatch<CpsMerge<T, Index>>(isa, t, band); }
};

// ---- entry points: `wide` says whether words have 32 bits --------------------------------------------

template <class T>
inline void cps_count(int isa, const ColumnPlan *plan, const T *x, int32_t *start, int32_t *word, int64_t *values,
                      int64_t *words) {
    dispatch<CpsCount<T>>(isa, plan, x, start, word, values, words);
}

// `ptr` may be null: the convolution has no use for it.
template <class T, class Index>
inline void cps_fill_as(int isa, const ColumnPlan *plan, const T *x, int32_t *start, int32_t *word, T *DA, Index *IN,
                        Index *ptr) {
    dispatch<CpsFill<T, Index>>(isa, plan, x, start, word, DA, IN);
    if (ptr) write_ptr(plan, start, ptr);
}
template <class T>
inline void cps_fill(int isa, int wide, const ColumnPlan *plan, const T *x, int32_t *start, int32_t *word, T *DA,
                     void *IN, ptrdiff_t in0, void *ptr, ptrdiff_t ptr0) {
    if (wide) cps_fill_as(isa, plan, x, start, word, DA, (int32_t *)IN + in0, ptr ? (int32_t *)ptr + ptr0 : nullptr);
    else cps_fill_as(isa, plan, x, start, word, DA, (uint16_t *)IN + in0, ptr ? (uint16_t *)ptr + ptr0 : nullptr);
}

template <class T, class Index>
inline int cps_decode_as(const ColumnPlan *plan, const Index *ptr, const T *DA, const Index *IN, int64_t values,
                         int64_t words, int32_t *start, int32_t *word, T *x) {
    if (!cps_locate(plan, ptr, IN, values, words, start, word)) return 0;
    cps_scatter(plan, word, DA, IN, x);
    return 1;
}
// 1, or 0 where the arrays contradict each other or the shape (x is then left alone).
template <class T>
inline int cps_decode(int wide, const ColumnPlan *plan, const void *ptr, ptrdiff_t ptr0, const T *DA, const void *IN,
                      ptrdiff_t in0, int64_t values, int64_t words, int32_t *start, int32_t *word, T *x) {
    if (wide)
        return cps_decode_as(plan, (const int32_t *)ptr + ptr0, DA, (const int32_t *)IN + in0, values, words, start, word, x);
    return cps_decode_as(plan, (const uint16_t *)ptr + ptr0, DA, (const uint16_t *)IN + in0, values, words, start, word, x);
}

template <class T>
inline void cps_strip(int isa, int V, int wide, const ColumnTask<T> *task) {
    if (wide) column_strip<T, CpsWalk<T, int32_t>>(isa, V, task);
    else column_strip<T, CpsWalk<T, uint16_t>>(isa, V, task);
}

}  // namespace jsc
