// Which channels of a pixel are not zero: masks (sets, H, W) of 64 bits; bit b of set s says whether channel
// 64 s + b is not zero. NaN is not.
#pragma once
#include "cpc/task.h"
#include "simd/simd.h"

namespace jsc {

// Masks of `pixels` consecutive channels-last pixels, `pitch` elements apart: mask[s * plane + p].
template <class T>
struct CpcMasks {
    template <class I>
    JSC_INLINE void run(const T *x, ptrdiff_t pixels, ptrdiff_t C, ptrdiff_t pitch, ptrdiff_t plane,
                        uint64_t *mask) {
        constexpr int L = lanes<I, T>;
        for (ptrdiff_t p = 0; p < pixels; p++, x += pitch) {
            for (ptrdiff_t c0 = 0; c0 < C; c0 += CPC_SET) {
                ptrdiff_t n = C - c0 < CPC_SET ? C - c0 : CPC_SET, c = 0;
                uint64_t bits = 0;
                for (; c + L <= n; c += L) bits |= (uint64_t)nonzero_mask(load<Vec<I, T>>(x + c0 + c)) << c;
                for (; c < n; c++) bits |= (uint64_t)(x[c0 + c] != 0) << c;
                mask[c0 / CPC_SET * plane + p] = bits;
            }
        }
    }
};

template <class T>
inline void cpc_masks(int isa, const T *x, ptrdiff_t pixels, ptrdiff_t C, ptrdiff_t pitch, ptrdiff_t plane,
                      uint64_t *mask) {
    dispatch<CpcMasks<T>>(isa, x, pixels, C, pitch, plane, mask);
}

}  // namespace jsc
