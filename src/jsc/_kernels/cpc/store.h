// The fused store of CPC (sweep.h): what follows the convolution, done while its sums are in registers.
//
//   out = relu(sum scale[k] + shift[k] + residual),   masks of out
//   scale = 1 / sqrt(variance + eps) weight,   shift = bias - mean scale
//
// Every part can be absent. The bits are those of torch's operators one by one: its batch-norm too is a
// multiply-add by these numbers, rounded once (on the base instruction set, twice). They are found anew in
// every task, some ten cycles each 16, so that no change of the statistics goes unseen.
//
// A mask word has the channels of one or more blocks of filters: each block writes its own bytes, so that
// no two tasks write the same ones. Cost: about the plain store's. What is saved, of a CPC layer's time at
// density .5 (one thread, AVX-512, fastest of 80 turns; AVX-512 Xeon):
//                          encoding   ReLU pass   conv, ReLU, masks handed on   conv, batch-norm, +, ReLU
//   3x3  64-64@56 / 128@28   4 / 2 %    12 / 4 %        1.16 / 1.05 x               1.43 / 1.25 x
//   3x3  256@14 / 512@7      0 / 1 %     2 / 1 %        1.03 / 1.01 x               1.17 / 1.09 x
//   3x3  16@32 / 64@8        9 / 3 %     7 / 6 %        1.09 / 1.07 x               1.58 / 1.55 x
//   1x1  256-64@56 / 64-256 18 / 7 %    10 / 35 %       1.27 / 1.39 x               1.67 / 2.42 x
//   1x1  480-192@14          4 %         5 %            1.09 x                      1.36 x
// Not worth it: joining the masks of concatenated maps, or encoding once for several readers (3 to 4 % of
// the 1x1 layers of GoogLeNet, half of which the extra call takes back).
#pragma once
#include <cmath>

#include "cpc/task.h"
#include "simd/simd.h"

namespace jsc {

// A mask is written in pieces, each by the block of filters it belongs to. That takes blocks of whole
// bytes; where they are smaller (4 lanes or fewer) a pass of CpcMasks over the output does it instead.
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
constexpr bool cpc_writes_masks(ptrdiff_t block) { return block % 8 == 0; }
#else
constexpr bool cpc_writes_masks(ptrdiff_t) { return false; }
#endif

// Bits of one pixel's V L filters to their place in its masks; the last block clears what lies behind it.
template <class T, int VL>
JSC_INLINE void cpc_store_bits(const CpcTask<T> &t, ptrdiff_t pixel, const uint64_t *bits) {
    if constexpr (VL > CPC_SET) {
        t.out_mask[pixel] = bits[0];
        if (!t.last || t.filters > CPC_SET) t.out_mask[t.out_plane + pixel] = bits[1];
    } else {
        char *mask = (char *)(t.out_mask + pixel);
        __builtin_memcpy(mask + t.first_bit / 8, bits, VL / 8);
        const uint64_t none = 0;
        for (int bit = t.first_bit + VL; t.last && bit < CPC_SET; bit += VL)
            __builtin_memcpy(mask + bit / 8, &none, VL / 8);
    }
}

// Vector v of a pixel's filters, of which n exist: partial sums in, output out; its bits are returned.
template <class I, class T>
JSC_INLINE uint64_t cpc_store_vector(const CpcTask<T> &t, const T *from, const T *scale, const T *shift,
                                     T *out, const T *residual, int n) {
    using V_ = Vec<I, T>;
    constexpr int L = lanes<I, T>;
    V_ value = load<V_>(from);
    if (t.norm.mean) value = value * load<V_>(scale) + load<V_>(shift);
    if (t.residual) value += n < L ? load_partial<V_>(residual, n) : load<V_>(residual);
    if (t.relu) value = value < 0 ? V_{} : value;  // as torch's: NaN and -0.0 stay
    if (n < L) store_partial(out, value, n);
    else store(out, value);
    return nonzero_mask(value) & (~0ull >> (64 - n));  // absent filters may hold 0 inf
}

// A band of finished sums to the output.
template <class I, class T, int V>
JSC_INLINE void cpc_store(const CpcTask<T> &t, const T *sums, ptrdiff_t row_step) {
    constexpr int L = lanes<I, T>, VL = V * L;
    alignas(64) T scale[VL] = {}, shift[VL] = {};
    for (ptrdiff_t k = 0; t.norm.mean && k < t.filters; k++) {
        const T inverse = 1 / std::sqrt(t.norm.variance[k] + t.norm.eps);
        scale[k] = t.norm.weight ? inverse * t.norm.weight[k] : inverse;
        shift[k] = (t.norm.bias ? t.norm.bias[k] : 0) - t.norm.mean[k] * scale[k];
    }
    for (ptrdiff_t r = 0; r < t.rows; r++)
        for (ptrdiff_t o = 0; o < t.Ow; o++) {
            const ptrdiff_t pixel = r * t.Ow + o;
            T *out = t.out + r * t.out_row + o * t.out_pitch;
            const T *residual = t.residual ? t.residual + r * t.residual_row + o * t.residual_pitch : nullptr;
            const T *from = sums + r * row_step + o * VL;
            uint64_t bits[(VL + CPC_SET - 1) / CPC_SET] = {};
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) {
                ptrdiff_t n = t.filters - v * L;
                if (n <= 0) break;
                bits[v * L / CPC_SET] |=
                    cpc_store_vector<I, T>(t, from + v * L, scale + v * L, shift + v * L, out + v * L,
                                           residual ? residual + v * L : nullptr, n < L ? (int)n : L)
                    << v * L % CPC_SET;
            }
            if constexpr (cpc_writes_masks(VL))
                if (t.out_mask) cpc_store_bits<T, VL>(t, pixel, bits);
        }
}

}  // namespace jsc
