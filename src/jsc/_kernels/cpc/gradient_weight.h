// Weights between the layouts of the CPC kernels and tensors of any strides, and the density of maps.
//
//   non-zeros  (channels of S, blocks of D, Kh, Kw, VL)   nonzeros.h
//   sweep      (blocks, sets of 64 channels, Kh, 64, Kw, VL)   sweep.h
//
// Weights change with every step of training: these copies are to cost little beside one pass. Scalar,
// because one side is always strided; order d, j, c or c, j, d so that the strided side stays in L1.
#pragma once
#include <cstring>

#include "simd/simd.h"

namespace jsc {

// Kernels between the layout of nonzeros.h, (channels, blocks, Kh, Kw, VL), and weights of any strides;
// `turned` counts kernel rows and columns from the last.
struct GradKernel {
    ptrdiff_t Cd, Kh, Kw, VL, turned, s_step, d_step, i_step, j_step;

    ptrdiff_t packed() const { return (Cd + VL - 1) / VL * VL * Kh * Kw; }
    // f(element of the weights, of the packed ones), both of the first channel; the first is -1 where there
    // is none.
    template <class F>
    void each(F f) const {
        for (ptrdiff_t d0 = 0, at = 0; d0 < Cd; d0 += VL)
            for (ptrdiff_t i = 0; i < Kh; i++)
                for (ptrdiff_t j = 0; j < Kw; j++) {
                    ptrdiff_t tap =
                        turned ? (Kh - 1 - i) * i_step + (Kw - 1 - j) * j_step : i * i_step + j * j_step;
                    for (ptrdiff_t d = d0; d < d0 + VL; d++, at++) f(d < Cd ? d * d_step + tap : -1, at);
                }
    }
};
// Up to GRAD_CHANNELS channels side by side, as they lie in channels-last weights of the input.
template <class T>
inline void grad_sum_weight(const GradKernel *k, ptrdiff_t channels, const T *weight_grad, ptrdiff_t ranges,
                            ptrdiff_t range_step, T *weight) {
    const ptrdiff_t step = k->packed(), s_step = k->s_step;
    k->each([=](ptrdiff_t to, ptrdiff_t at) {
        for (ptrdiff_t s = 0; to >= 0 && s < channels; s++) {
            T sum = weight_grad[at + s * step];
            for (ptrdiff_t r = 1; r < ranges; r++) sum += weight_grad[at + s * step + r * range_step];
            weight[to + s * s_step] = sum;
        }
    });
}
// Both kinds of packing return whether the weights are finite.
template <class T>
inline bool grad_pack_weight(const GradKernel *k, ptrdiff_t channels, const T *weight, T *packed) {
    const ptrdiff_t step = k->packed(), s_step = k->s_step;
    T bad = 0;
    k->each([=, &bad](ptrdiff_t from, ptrdiff_t at) {
        for (ptrdiff_t s = 0; s < channels; s++) {
            T value = from < 0 ? 0 : weight[from + s * s_step];
            bad += value * 0;
            packed[at + s * step] = value;
        }
    });
    return bad == 0;
}

// One kernel row of up to 64 channels and one block of filters, (64, Kw, VL), as sweep.h wants it.
template <class T>
inline bool grad_pack_sweep(const GradKernel *k, ptrdiff_t channels, ptrdiff_t filters, ptrdiff_t row,
                            const T *weight, T *packed) {
    T bad = 0;
    if (channels < 64 || filters < k->VL) memset(packed, 0, 64 * k->Kw * k->VL * sizeof(T));
    weight += (k->turned ? k->Kh - 1 - row : row) * k->i_step;
    auto put = [=, &bad](ptrdiff_t c, ptrdiff_t j, ptrdiff_t d) {
        T value = weight[c * k->s_step + d * k->d_step + (k->turned ? k->Kw - 1 - j : j) * k->j_step];
        bad += value * 0;
        packed[(c * k->Kw + j) * k->VL + d] = value;
    };
    if (k->d_step == 1) {
        for (ptrdiff_t c = 0; c < channels; c++)
            for (ptrdiff_t j = 0; j < k->Kw; j++)
                for (ptrdiff_t d = 0; d < filters; d++) put(c, j, d);
    } else {
        for (ptrdiff_t d = 0; d < filters; d++)
            for (ptrdiff_t j = 0; j < k->Kw; j++)
                for (ptrdiff_t c = 0; c < channels; c++) put(c, j, d);
    }
    return bad == 0;
}

// Elements of x[0 .. n) that are not zero.
template <class T>
struct GradCount {
    template <class I>
    JSC_INLINE void run(const T *x, ptrdiff_t n, ptrdiff_t *count) {
        constexpr int L = lanes<I, T>;
        ptrdiff_t found = 0, i = 0;
        for (; i + L <= n; i += L) found += __builtin_popcount(nonzero_mask(load<Vec<I, T>>(x + i)));
        for (; i < n; i++) found += x[i] != 0;
        *count += found;
    }
};
template <class T>
inline void grad_count(int isa, const T *x, ptrdiff_t n, ptrdiff_t *count) {
    dispatch<GradCount<T>>(isa, x, n, count);
}

}  // namespace jsc
