// One task of the CPC convolution (sweep.h), for those who only hand tasks over: the sweep itself is
// compiled once, in the module `forward`, and reached through a pointer of type CpcBandFunction.
#pragma once
#include <cstddef>
#include <cstdint>

namespace jsc {

constexpr int CPC_SET = 64;  // channels to a mask

// An evaluating batch-norm: out = (x - mean) / sqrt(variance + eps) weight + bias, where weight and
// bias can be null. All null: none.
template <class T>
struct CpcNorm {
    const T *mean = nullptr, *variance = nullptr, *weight = nullptr, *bias = nullptr;
    T eps = 0;
};

// What a task needs to know; everything is in elements, `x` and `mask` point at the task's image.
template <class T>
struct CpcTask {
    const T *x;
    const uint64_t *mask;
    const T *weight;  // of the task's filter block: (sets, Kh, 64, Kw, V L)
    const T *bias;    // of the task's filter block, or null
    T *tile;          // (rows, margin + Ow + margin, V L)
    T *out;           // first filter of the block, at the first row of the band
    ptrdiff_t pixel_step, row_step, set_step;  // of x, from a pixel, row, set of channels to the next
    ptrdiff_t out_pitch, out_row;              // of out, from a pixel, row to the next
    ptrdiff_t C, H, W, Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw, Ow;
    ptrdiff_t row0, rows;  // the band: output rows row0 .. row0 + rows
    ptrdiff_t filters;     // filters of the block that exist, at most V L

    // What the store of a finished output adds to the convolution, in this order; null or false: nothing.
    CpcNorm<T> norm;  // of the block's filters
    const T *residual = nullptr;  // of the same pixels and filters as `out`: + residual
    ptrdiff_t residual_pitch = 0, residual_row = 0;
    bool relu = false;
    uint64_t *out_mask = nullptr;  // masks of the result, at the block's first set and the band's first row
    ptrdiff_t out_plane = 0;  // from a set of them to the next
    int first_bit = 0;  // of the block's first filter in its mask
    bool last = false;  // no block comes after this one: it owns the rest of its masks
};

template <class T>
using CpcBandFunction = void (*)(int isa, int V, const CpcTask<T> *task);

}  // namespace jsc
