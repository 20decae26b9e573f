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
#include "columns.h"

namespace jsc {

// ---- encode ----------------------------------------------------------------------------------------

// Non-zeros of each column of an (H, W) plane, as cursors in start (columns + 1); *total of them.
template <class T>
struct CpoCount {
    template <class I>
    JSC_INLINE void run(const ColumnPlan *plan, const T *x, int32_t *start, int64_t *total) {
        using V = Vec<I, T>;
        constexpr int L = lanes<I, T>;
        const ptrdiff_t W = plan->W, H = plan->H;
        ptrdiff_t j = 0;
        for (; j + L <= W; j += L) {
            auto count = (V{} != V{});
            for (ptrdiff_t i = 0; i < H; i++) count -= (load<V>(x + i * W + j) != 0);
            for (int l = 0; l < L; l++)
                if (plan->slot[j + l] >= 0) start[plan->slot[j + l] + 1] = (int32_t)count[l];
        }
        for (; j < W; j++) {
            int32_t count = 0;
            for (ptrdiff_t i = 0; i < H; i++) count += x[i * W + j] != 0;
            if (plan->slot[j] >= 0) start[plan->slot[j] + 1] = count;
        }
        *total = counts_to_cursors(start, plan->columns);
    }
};

template <class T, class Index>
struct CpoFill {
    JSC_INLINE void put(const ColumnPlan *plan, ptrdiff_t i, ptrdiff_t j, T value, int32_t *start, T *DA, Index *IN) {
        int32_t t = plan->slot[j];
        if (t < 0) return;
        int32_t place = start[t + 1]++;
        DA[place] = value;
        IN[place] = (Index)((i + plan->Ph) * plan->Kw + plan->kernel_column[t]);
    }
    template <class I>
    JSC_INLINE void run(const ColumnPlan *plan, const T *x, int32_t *start, T *DA, Index *IN) {
        constexpr int L = lanes<I, T>;
        const ColumnPlan p = *plan;
        for (ptrdiff_t i = 0; i < p.H; i++, x += p.W) {
            ptrdiff_t j = 0;
            for (; j + L <= p.W; j += L)
                for (uint32_t bits = nonzero_mask(load<Vec<I, T>>(x + j)); bits; bits &= bits - 1) {
                    int l = __builtin_ctz(bits);
                    put(&p, i, j + l, x[j + l], start, DA, IN);
                }
            for (; j < p.W; j++)
                if (x[j] != 0) put(&p, i, j, x[j], start, DA, IN);
        }
    }
};

// ---- decode ----------------------------------------------------------------------------------------

// The start of every column from Ptr and IN, checking everything; false when they contradict the shape.
template <class Index>
inline bool cpo_locate(const ColumnPlan *plan, const Index *ptr, const Index *IN, int64_t total, int32_t *start) {
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

template <class T, class Index>
struct CpoMerge {
    template <class I>
    JSC_INLINE void run(const ColumnTask<T> *task, BandRows band) {
        const ColumnTask<T> t = *task;
        const ptrdiff_t C = t.C(), W = t.plan.W, Kw = t.plan.Kw, columns = t.plan.columns, height = band.last - band.first;
        const int64_t first = (band.first + t.plan.Ph) * Kw, split = (band.split + t.plan.Ph) * Kw;
        const int64_t last = (band.last + t.plan.Ph) * Kw, kept = split < last ? split : last;
        const uint64_t reciprocal = ((1ull << 32) + Kw - 1) / Kw;  // code / Kw without a division
        for (ptrdiff_t c0 = 0; c0 < C; c0 += CPC_SET) {
            const ptrdiff_t c1 = c0 + CPC_SET < C ? c0 + CPC_SET : C;
            uint64_t *set_mask = t.mask + c0 / CPC_SET * height * W;
            // Columns outside, channels inside: the column's pixels stay in L1 while all channels write them.
            for (ptrdiff_t k = 0; k < columns; k++) {
                uint64_t *mask = set_mask + t.plan.column[k];
                for (ptrdiff_t c = c0; c < c1; c++) {
                    const Index *IN = (const Index *)t.index + t.index_offset[c];
                    const T *DA = t.values + t.value_offset[c];
                    T *tile = t.tile + t.plan.column[k] * C + c;
                    const uint64_t bit = 1ull << (c - c0);
                    int32_t n = t.cursor[k * C + c];
                    const int32_t end = t.value_start[c * (columns + 1) + k + 1];
                    for (; n < end && IN[n] < kept; n++) {
                        ptrdiff_t row = (ptrdiff_t)(((uint64_t)(IN[n] - first) * reciprocal) >> 32);
                        mask[row * W] |= bit;
                        tile[row * W * C] = DA[n];
                    }
                    int32_t next = n;
                    for (; n < end && IN[n] < last; n++) {
                        ptrdiff_t row = (ptrdiff_t)(((uint64_t)(IN[n] - first) * reciprocal) >> 32);
                        mask[row * W] |= bit;
                        tile[row * W * C] = DA[n];
                    }
                    for (; next < end && IN[next] < split; next++) {}
                    t.cursor[k * C + c] = next;
                }
            }
        }
    }
};

template <class T, class Index>
struct CpoWalk {
    static constexpr ptrdiff_t unit = 1;
    static void seek(int, const ColumnTask<T> *t, ptrdiff_t row) {
        const ptrdiff_t columns = t->plan.columns, C = t->C();
        const int64_t first = (row + t->plan.Ph) * t->plan.Kw;
        for (ptrdiff_t c = 0; c < C; c++) {
            const int32_t *start = t->value_start + c * (columns + 1);
            const Index *IN = (const Index *)t->index + t->index_offset[c];
            for (ptrdiff_t k = 0; k < columns; k++) {
                int32_t low = start[k], high = start[k + 1];
                if (row == 0) high = low;
                while (low < high) {
                    int32_t middle = low + (high - low) / 2;
                    if (IN[middle] < first) low = middle + 1;
                    else high = middle;
                }
                t->cursor[k * C + c] = low;
            }
        }
    }
    static void merge(int isa, const ColumnTask<T> *t, BandRows band) { dispatch<CpoMerge<T, Index>>(isa, t, band); }
};

// ---- entry points: `wide` says whether indices have 32 bits ------------------------------------------

template <class T>
inline void cpo_count(int isa, const ColumnPlan *plan, const T *x, int32_t *start, int64_t *total) {
    dispatch<CpoCount<T>>(isa, plan, x, start, total);
}

// `ptr` may be null: the convolution has no use for it.
template <class T, class Index>
inline void cpo_fill_as(int isa, const ColumnPlan *plan, const T *x, int32_t *start, T *DA, Index *IN, Index *ptr) {
    dispatch<CpoFill<T, Index>>(isa, plan, x, start, DA, IN);
    if (ptr) write_ptr(plan, start, ptr);
}
template <class T>
inline void cpo_fill(int isa, int wide, const ColumnPlan *plan, const T *x, int32_t *start, T *DA, void *IN,
                     ptrdiff_t in0, void *ptr, ptrdiff_t ptr0) {
    if (wide) cpo_fill_as(isa, plan, x, start, DA, (int32_t *)IN + in0, ptr ? (int32_t *)ptr + ptr0 : nullptr);
    else cpo_fill_as(isa, plan, x, start, DA, (uint16_t *)IN + in0, ptr ? (uint16_t *)ptr + ptr0 : nullptr);
}

template <class T, class Index>
inline int cpo_decode_as(const ColumnPlan *plan, const Index *ptr, const T *DA, const Index *IN, int64_t total,
                         int32_t *start, T *x) {
    if (!cpo_locate(plan, ptr, IN, total, start)) return 0;
    cpo_scatter(plan, start, DA, IN, x);
    return 1;
}
// 1, or 0 where the arrays contradict each other or the shape (x is then left alone).
template <class T>
inline int cpo_decode(int wide, const ColumnPlan *plan, const void *ptr, ptrdiff_t ptr0, const T *DA, const void *IN,
                      ptrdiff_t in0, int64_t total, int32_t *start, T *x) {
    if (wide) return cpo_decode_as(plan, (const int32_t *)ptr + ptr0, DA, (const int32_t *)IN + in0, total, start, x);
    return cpo_decode_as(plan, (const uint16_t *)ptr + ptr0, DA, (const uint16_t *)IN + in0, total, start, x);
}

template <class T>
inline void cpo_strip(int isa, int V, int wide, const ColumnTask<T> *task) {
    if (wide) column_strip<T, CpoWalk<T, int32_t>>(isa, V, task);
    else column_strip<T, CpoWalk<T, uint16_t>>(isa, V, task);
}

}  // namespace jsc
