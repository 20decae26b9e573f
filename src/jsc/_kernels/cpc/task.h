// One task of the CPC convolution (sweep.h), for those who only hand tasks over: the sweep itself is
// compiled once, in the module `forward`, and reached through a pointer of type CpcBandFunction.
#pragma once
#include <cstddef>
#include <cstdint>

namespace jsc {

constexpr int CPC_SET = 64;  // channels to a mask

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

    // What a compiled network adds as a finished output is stored, in this order; null or false: nothing.
    const T *residual = nullptr;  // of the same pixels and filters as `out`: + residual
    ptrdiff_t residual_pitch = 0, residual_row = 0;
    bool relu = false;
};

template <class T>
using CpcBandFunction = void (*)(int isa, int V, const CpcTask<T> *task);

}  // namespace jsc
