// CPO and CPS by number: a plane encoded, its row masks, and decoded, for whichever format a plan is of.
#pragma once
#include "columns/cpo.h"
#include "columns/cps.h"

namespace jsc {

struct ColumnFormat {
    bool sets;  // CPS: indices are words of sets of rows
    bool wide;  // indices have 32 bits, not 16

    ptrdiff_t index_bytes() const { return wide ? 4 : 2; }
    // f(policy): the format as a type.
    template <class F>
    auto as(F f) const {
        if (sets) return wide ? f(CpsStreams<int32_t>{}) : f(CpsStreams<uint16_t>{});
        return wide ? f(CpoStreams<int32_t>{}) : f(CpoStreams<uint16_t>{});
    }
};

// Regions of planes, one after the other: values (planes, value_step), indices (planes, index_step), places
// of columns in both (planes, columns + 1), row masks (planes, columns, words) or null. `word` is `start`
// where indices have one entry for each value.
template <class T>
struct ColumnRegions {
    T *values;
    char *indices;
    int32_t *start, *word;
    uint64_t *rows;
    ptrdiff_t value_step, index_step;  // in elements
};

// Maps to be encoded: (planes, H, W), or channels-last (images, H, W, C).
template <class T>
struct ColumnSource {
    const T *x;
    ptrdiff_t planes, C;
    bool channels_last;

    ptrdiff_t together(int isa) const {
        return channels_last ? (ptrdiff_t)((16 << isa) / sizeof(T)) : 1;
    }  // planes of a part
    ptrdiff_t parts(int isa) const {
        if (!channels_last) return planes;
        return C ? planes / C * ((C + together(isa) - 1) / together(isa)) : 0;
    }
};

// Part `index` of the maps: a plane, or some channels of an image. `scratch` has room for
// `plan->transposed()`.
template <class T>
inline void column_encode(int isa, ColumnFormat format, const ColumnPlan *plan, const ColumnSource<T> &source,
                          ptrdiff_t index, T *scratch, const ColumnRegions<T> &to) {
    const ptrdiff_t size = plan->H * plan->W, starts = plan->columns + 1,
                    masks = plan->columns * plan->words();
    const T *x = source.x, *end = x + source.planes * size;
    ptrdiff_t plane = index, count = 1, c = 0;
    if (source.channels_last) {
        const ptrdiff_t L = source.together(isa), groups = (source.C + L - 1) / L, n = index / groups;
        c = index % groups * L;
        count = source.C - c < L ? source.C - c : L;
        plane = n * source.C + c;
        x += n * size * source.C + c;
    } else {
        x += plane * size;
    }
    format.as([&](auto policy) {
        using F = decltype(policy);
        using Index = typename F::Index;
        int32_t *start = to.start + plane * starts, *word = F::has_words ? to.word + plane * starts : nullptr;
        Index *indices = (Index *)to.indices + plane * to.index_step;
        ColumnStreams<T, Index> s = {to.values + plane * to.value_step, indices, start, word};
        if (source.channels_last)
            dispatch<EncodePixels<T, Index, F>>(isa, plan, x, end, source.C, count, scratch, &s,
                                                to.value_step, to.index_step);
        else dispatch<EncodePlane<T, Index, F>>(isa, plan, x, end, scratch, &s);
        const int32_t *places = F::has_words ? word : start;
        for (ptrdiff_t q = 0; to.rows && q < count; q++)
            dispatch<typename F::Rows>(isa, plan, places + q * starts,
                                       (const Index *)indices + q * to.index_step,
                                       to.rows + (plane + q) * masks);
    });
}

// False where the arrays contradict each other or the shape (x is then left alone).
template <class T>
inline bool column_decode(ColumnFormat format, const ColumnPlan *plan, const void *ptr, ptrdiff_t ptr0,
                          const T *DA, const void *IN, ptrdiff_t in0, int64_t values, int64_t words,
                          int32_t *start, int32_t *word, T *x) {
    return format.as([&](auto policy) {
        using Index = typename decltype(policy)::Index;
        return policy.decode(plan, (const Index *)ptr + ptr0, DA, (const Index *)IN + in0, values, words,
                             start, word, x);
    });
}

}  // namespace jsc
