// 3 x 3 weights of floats or doubles, of any strides, in the two layouts of network/winograd.h:
//
//   transformed  (filter blocks, positions, C, V lanes)      U = Gv w Gh', in float64, rounded once
//   plain        (vectors of filters, 3, 3, C, lanes)        rounded
//
// Filters that do not exist are zero. Negative steps turn a kernel by 180 degrees, and exchanged ones make
// filters of channels: the weights of the gradient of the input. Training packs in every step: a block of 64
// filters of 64 channels takes some 30 us (AMD EPYC, AVX-512), and its 3 x 3 convolution of 64 32 x 32 maps
// 25 ms.
#pragma once
#include <algorithm>
#include <cstring>

#include "winograd/transforms.h"

namespace jsc {

struct WinogradPackFields {
    ptrdiff_t K, C, mv, mh;
    ptrdiff_t vectors;  // V
    ptrdiff_t k_step, c_step, i_step,
        j_step;  // in numbers, from one filter, channel, row, column to the next
};

template <class T>  // of the weights
struct WinogradPack {
    static constexpr int CHANNELS = 16;  // at a time: lines of memory are read from end to end
    // Channels c0, ... of L filters from k0. The innermost loop follows the shorter step.
    template <int L>
    JSC_INLINE void gather(const WinogradPackFields &f, const T *weight, ptrdiff_t k0, ptrdiff_t c0,
                           ptrdiff_t channels, double (*to)[9][L]) {
        const ptrdiff_t filters = std::min<ptrdiff_t>(L, f.K - k0);
        if (filters < L) memset(to, 0, sizeof(double) * channels * 9 * L);
        weight += k0 * f.k_step + c0 * f.c_step;
        const auto put = [&](ptrdiff_t l, ptrdiff_t c, int i, int j) {
            to[c][3 * i + j][l] = weight[l * f.k_step + c * f.c_step + i * f.i_step + j * f.j_step];
        };
        if (f.c_step < f.k_step)
            for (ptrdiff_t l = 0; l < filters; l++)
                for (int i = 0; i < 3; i++)
                    for (int j = 0; j < 3; j++)
                        for (ptrdiff_t c = 0; c < channels; c++) put(l, c, i, j);
        else
            for (ptrdiff_t c = 0; c < channels; c++)
                for (int i = 0; i < 3; i++)
                    for (int j = 0; j < 3; j++)
                        for (ptrdiff_t l = 0; l < filters; l++) put(l, c, i, j);
    }
    template <class I, int mv, int mh>
    JSC_INLINE void block(const WinogradPackFields &f, const T *weight, ptrdiff_t k0, float *transformed,
                          float *plain) {
        using D = Vec<I, double>;
        constexpr int L = lanes<I, float>, half = lanes<I, double>, nv = mv + 2, nh = mh + 2;
        const ptrdiff_t count = std::min(f.vectors, (f.K - k0 + L - 1) / L), width = count * L;
        for (ptrdiff_t v = 0; v < count; v++)
            for (ptrdiff_t c0 = 0; c0 < f.C; c0 += CHANNELS) {
                const ptrdiff_t channels = std::min<ptrdiff_t>(CHANNELS, f.C - c0);
                alignas(64) double numbers[CHANNELS][9][L];
                gather<L>(f, weight, k0 + v * L, c0, channels, numbers);
                for (ptrdiff_t c = 0; c < channels; c++) {
                    const auto &w = numbers[c];
                    for (int tap = 0; tap < 9; tap++)
                        for (int l = 0; l < L; l++)
                            plain[((v * 9 + tap) * f.C + c0 + c) * L + l] = (float)w[tap][l];
                    for (int first = 0; first < L; first += half) {
                        D middle[nv][3];
#pragma GCC unroll 3
                        for (int j = 0; j < 3; j++) {
                            D column[3], turned[nv];
                            for (int i = 0; i < 3; i++) column[i] = load<D>(w[3 * i + j] + first);
                            Points<mv>::template weight<D>(column, turned);
#pragma GCC unroll 6
                            for (int i = 0; i < nv; i++) middle[i][j] = turned[i];
                        }
#pragma GCC unroll 6
                        for (int i = 0; i < nv; i++) {
                            D row[nh];
                            Points<mh>::template weight<D>(middle[i], row);
#pragma GCC unroll 6
                            for (int j = 0; j < nh; j++) {
                                float *to =
                                    transformed + ((i * nh + j) * f.C + c0 + c) * width + v * L + first;
                                for (int d = 0; d < half; d++) to[d] = (float)row[j][d];
                            }
                        }
                    }
                }
            }
    }
    // The block of filters k0, ...; both outputs at its first element.
    template <class I>
    JSC_INLINE void run(const WinogradPackFields *f, const T *weight, ptrdiff_t k0, float *transformed,
                        float *plain) {
        if (f->mv == 4) block<I, 4, 4>(*f, weight, k0, transformed, plain);
        else if (f->mh == 4) block<I, 2, 4>(*f, weight, k0, transformed, plain);
        else block<I, 2, 2>(*f, weight, k0, transformed, plain);
    }
};
inline void winograd_pack(int isa, const WinogradPackFields *f, const void *weight, bool doubles,
                          ptrdiff_t k0, float *transformed, float *plain) {
    if (doubles) dispatch<WinogradPack<double>>(isa, f, (const double *)weight, k0, transformed, plain);
    else dispatch<WinogradPack<float>>(isa, f, (const float *)weight, k0, transformed, plain);
}

}  // namespace jsc
