// Gradients of a convolution of stride 1 that multiply only where one of its two maps is not zero.
//
//   weight_grad[s, i, j, d] = sum_p S[p, s] D[p + (i, j) - (top, left), d]    over pixels p with S[p, s] != 0
//   input_grad[p, s] = sum_{i, j, d} D[p + (i, j) - (top, left), d] weight[s, i, j, d]    where S[p, s] != 0
//
// With S the input, D the gradient of the output, top = Kh - 1 - Ph, left = Kw - 1 - Pw and kernels turned
// by 180 degrees, these are the gradients of the weights and of the input, the latter wanted where the input
// is the output of a ReLU and zero elsewhere. With S the gradient of the output, D the input, top = Ph,
// left = Pw, `weight_grad` is that of the weights too: S is whichever map has more zeros.
//
// Layout
//   S, D     channels-last; S may be every other row and column of a larger map
//   unit     `rows` rows of one image; a group of units is what shares a copy of D in L1
//   planes   (channels of the task, pixels) a transposed copy of S, and a bit per element that is not zero
//   block    (pixels of a group with a border, V L) the copy of D for one block of V vectors of L channels
//   weight   (channels, blocks, taps, V L), as `weight_grad`; zero where there is no channel
//
// A task owns up to 16 channels of S and a range of units fixed by the shape. For each block of D, each group
// and each of its channels it holds the taps (all nine of a 3x3 kernel, else those of a kernel row) of
// `weight_grad` in registers and goes through the channel's non-zeros: a broadcast, then a load of D and a
// multiply-add for each tap and vector, and a second multiply-add with the weights, whose lanes are added
// for L non-zeros together. Pixels side by side are taken together, and share these loads where their taps
// overlap.
// Ladder (ratio to torch's dense passes, both of which run at 75 % of the peak; random maps of density
// .2 / .4 / .8, batch 32, processor time of one thread of a Xeon with AVX-512 that other work shared)
//                                          weight, 32 at 16    weight, 64 at 8    both, 64 at 8
//   taps in registers, one visit at a time   1.79/1.22/.73      1.87/1.28/.77      1.66/1.13/.67
//   + neighbours visited together            1.82/1.28/.84      1.91/1.30/.87      1.60/1.18/.73
// What bounds it: on that machine a multiply-add takes .147 ns from registers and .23 with a load, .185
// where two share one; torch's takes .2. Gathering, copying and scattering maps adds 8 % (64 at 8) to 23 %
// (16 at 32) of torch's two passes, most of it waiting for memory. Worse: lanes of the dot products
// scattered one by one (10 %), software prefetching of the next block and planes into L2 (up to 12 %).
// Numerics: `weight_grad` adds pixels in order, then ranges of units in order; `input_grad` adds taps in
// two chains, lanes as a tree, blocks (and kernel rows) in order: the same bits for any number of threads.
// Zeros of S are skipped and the border's are not, which is right for finite maps and weights: others are
// reported, for the dense way to do them.
#pragma once
#include <cstring>

#include "simd/simd.h"

namespace jsc {

constexpr int GRAD_CHANNELS = 16;  // of S to a task
constexpr int GRAD_SUMS_BYTES = 80 * 64;  // of the sums of a word of non-zeros

template <class T>
struct GradTask {  // in elements
    const T *S;  // at the task's first channel
    const T *D;  // (N, Hd, Wd, Cd)
    const T *weight;  // of the task's channels, or null
    T *weight_grad;  // the same layout, or null
    T *input_grad;  // strides of S, or null
    const int64_t *S_offset;  // of the pixels of a group from its first unit's first
    const int32_t *D_offset;  // of the same pixels in `block`
    const uint64_t *pairs;  // bits of the pixels that are taken with their right neighbour
    T *block, *planes, *input_grad_planes, *sums;  // scratch
    uint64_t *mask;  // scratch
    ptrdiff_t image_step, row_step;  // of S
    ptrdiff_t channels;  // of S in this task
    ptrdiff_t H, W, Hd, Wd, Cd, Kh, Kw, top, left;
    ptrdiff_t rows, bands, group;  // rows to a unit, units to an image, units to a group
    ptrdiff_t unit0, units;  // what this call is to do

    ptrdiff_t pitch() const { return W + Kw - 1; }
    ptrdiff_t words() const { return (group * rows * W + 63) / 64; }  // of a group's masks
    ptrdiff_t groups() const { return (units + group - 1) / group; }
    ptrdiff_t group_units(ptrdiff_t q) const { return units - q * group < group ? units - q * group : group; }
    ptrdiff_t group_offset(ptrdiff_t q) const {
        ptrdiff_t unit = unit0 + q * group;
        return unit / bands * image_step + unit % bands * rows * row_step;
    }
    ptrdiff_t group_pixels(ptrdiff_t q) const {  // with several bands, a group is one unit
        ptrdiff_t y = (unit0 + q * group) % bands * rows;
        return bands == 1 ? group_units(q) * rows * W : (H - y < rows ? H - y : rows) * W;
    }
};

// ---- maps in and out -------------------------------------------------------------------------------

// `n` pixels of the map to planes, L x L elements at a time; `bad` becomes NaN where one is not finite.
template <class I, class T>
JSC_INLINE void grad_gather(const T *map, const int64_t *offset, ptrdiff_t n, ptrdiff_t channels,
                            ptrdiff_t plane, T *to, Vec<I, T> &bad) {
    constexpr int L = lanes<I, T>;
    for (ptrdiff_t c = 0; c < channels; c += L) {
        ptrdiff_t p = 0, some = channels - c < L ? channels - c : L;
        for (; some == L && p + L <= n; p += L) {
            Vec<I, T> v[L];
#pragma GCC unroll 16
            for (int l = 0; l < L; l++) v[l] = load<Vec<I, T>>(map + offset[p + l] + c), bad += v[l] * 0;
            transpose<I, T>(v);
#pragma GCC unroll 16
            for (int l = 0; l < L; l++) store(to + (c + l) * plane + p, v[l]);
        }
        for (; p < n; p++)
            for (ptrdiff_t l = 0; l < some; l++)
                to[(c + l) * plane + p] = map[offset[p] + c + l], bad += map[offset[p] + c + l] * 0;
    }
}
template <class I, class T>
JSC_INLINE void grad_scatter(const T *from, const int64_t *offset, ptrdiff_t n, ptrdiff_t channels,
                             ptrdiff_t plane, T *map) {
    constexpr int L = lanes<I, T>;
    for (ptrdiff_t c = 0; c < channels; c += L) {
        ptrdiff_t p = 0, some = channels - c < L ? channels - c : L;
        for (; some == L && p + L <= n; p += L) {
            Vec<I, T> v[L];
#pragma GCC unroll 16
            for (int l = 0; l < L; l++) v[l] = load<Vec<I, T>>(from + (c + l) * plane + p);
            transpose<I, T>(v);
#pragma GCC unroll 16
            for (int l = 0; l < L; l++) store(map + offset[p + l] + c, v[l]);
        }
        for (; p < n; p++)
            for (ptrdiff_t l = 0; l < some; l++) map[offset[p] + c + l] = from[(c + l) * plane + p];
    }
}

template <class I, class T>
JSC_INLINE void grad_masks(const T *plane, ptrdiff_t n, uint64_t *mask) {
    constexpr int L = lanes<I, T>;
    for (; n > 0; n -= 64, plane += 64) {
        ptrdiff_t some = n < 64 ? n : 64, p = 0;
        uint64_t bits = 0;
        for (; p + L <= some; p += L) bits |= (uint64_t)nonzero_mask(load<Vec<I, T>>(plane + p)) << p;
        for (; p < some; p++) bits |= (uint64_t)(plane[p] != 0) << p;
        *mask++ = bits;
    }
}

// Channels d0 .. d0 + V L of D around one unit, zero outside the map; `bad` as above.
template <class I, class T, int V>
JSC_INLINE void grad_block(const GradTask<T> &t, ptrdiff_t unit, ptrdiff_t d0, T *to, Vec<I, T> &bad) {
    using V_ = Vec<I, T>;
    constexpr int L = lanes<I, T>;
    const ptrdiff_t y0 = unit % t.bands * t.rows - t.top, pitch = t.pitch(), some = t.Cd - d0;
    const ptrdiff_t first = t.left < 0 ? 0 : t.left < pitch ? t.left : pitch, end = t.left + t.Wd;
    const ptrdiff_t last = end < first ? first : end < pitch ? end : pitch;
    for (ptrdiff_t y = y0; y < y0 + t.rows + t.Kh - 1; y++, to += pitch * V * L) {
        if (y < 0 || y >= t.Hd) {
            memset(to, 0, pitch * V * L * sizeof(T));
            continue;
        }
        memset(to, 0, first * V * L * sizeof(T));
        memset(to + last * V * L, 0, (pitch - last) * V * L * sizeof(T));
        const T *from = t.D + ((unit / t.bands * t.Hd + y) * t.Wd - t.left) * t.Cd + d0;
        for (ptrdiff_t p = first; p < last; p++)
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) {
                const T *at = from + p * t.Cd + v * L;
                ptrdiff_t have = some - v * L;
                V_ value = have >= L ? load<V_>(at) : have > 0 ? load_partial<V_>(at, (int)have) : V_{};
                bad += value * 0;
                store(to + (p * V + v) * L, value);
            }
    }
}

// ---- non-zeros ----------------------------------------------------------------------------------------

// v[0] = the sums of the lanes of v[0], .., v[L - 1].
template <class I, class T, int Half>
JSC_INLINE void grad_add_lanes(Vec<I, T> *v) {
    constexpr int L = lanes<I, T>;
#pragma GCC unroll 16
    for (int i = 0; i < L; i += 2 * Half) {
        exchange<Vec<I, T>, Half>(v[i], v[i + Half], std::make_index_sequence<L>());
        v[i] += v[i + Half];
    }
    if constexpr (2 * Half < L) grad_add_lanes<I, T, 2 * Half>(v);
}

// Adds the lanes of each vector of sums to the element whose bit it belongs to.
template <class I, class T>
JSC_INLINE void grad_add_sums(const T *sums, const T *end, uint64_t bits, T *out) {
    using V_ = Vec<I, T>;
    constexpr int L = lanes<I, T>;
    T total[64 + L], *to = total;
    for (; sums < end; sums += L * L, to += L) {
        V_ v[L];
#pragma GCC unroll 16
        for (int l = 0; l < L; l++) v[l] = load<V_>(sums + l * L);
        grad_add_lanes<I, T, 1>(v);
        store(to, v[0]);
    }
    to = total;
    if constexpr (I::bytes == 64) {
        for (; bits; bits >>= L, out += L) {
            uint32_t some = (uint32_t)bits & ((1u << L) - 1);
            store(out, load<V_>(out) + expand_lanes(load<V_>(to), some));
            to += __builtin_popcount(some);
        }
    } else {
        for (; bits; bits &= bits - 1) out[__builtin_ctzll(bits)] += *to++;
    }
}

// The products of a non-zero, or of a pair side by side, whose taps share the loads of D and of weights.
// `a` is `weight_grad` in registers; the dot products go to sums[0] (and sums[L]).
template <class I, class T, int V, int R, int Taps, bool WeightGrad, bool InputGrad, bool Held, bool Pair>
JSC_INLINE void grad_products(Vec<I, T> a[R][Taps][V], const Vec<I, T> w[R][Taps][V], const T *row,
                              ptrdiff_t row_step, const T *weight, T left, T right, T *sums) {
    using V_ = Vec<I, T>;
    constexpr int L = lanes<I, T>;
    V_ first[2] = {}, second = {};
#pragma GCC unroll 8
    for (int i = 0; i < R; i++, row += row_step) {
        keep_in_register(row);
        V_ before[V] = {};
#pragma GCC unroll 8
        for (int j = 0; j < Taps + Pair; j++)
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) {
                V_ dense = load<V_>(row + (j * V + v) * L), own = {};
                if (Pair || (WeightGrad && InputGrad)) keep_in_register(dense);
                if (WeightGrad && j < Taps) a[i][j][v] += left * dense;
                if (WeightGrad && Pair && j > 0) a[i][j - 1][v] += right * dense;
                if (!InputGrad) continue;
                if (j < Taps) {
                    own = Held ? w[i][j][v] : load<V_>(weight + ((i * Taps + j) * V + v) * L);
                    if (Pair && !Held) keep_in_register(own);
                    first[Pair ? 0 : (j + v) & 1] += dense * own;
                }
                if (Pair && j > 0) second += dense * before[v];
                before[v] = own;
            }
    }
    if (InputGrad && Pair) store(sums, first[0]), store(sums + L, second);
    else if (InputGrad) store(sums, first[0] + first[1]);
}

// All non-zeros of one channel of a group: R kernel rows of `Taps` taps of one block.
template <class I, class T, int V, int R, int Taps, bool WeightGrad, bool InputGrad>
JSC_INLINE void grad_nonzeros(const T *plane, const uint64_t *mask, const uint64_t *pairs, ptrdiff_t words,
                              const int32_t *offset, const T *block, ptrdiff_t row_step, const T *weight,
                              T *weight_grad, T *sums, T *input_grad) {
    using V_ = Vec<I, T>;
    constexpr int L = lanes<I, T>;
    constexpr bool Held = InputGrad && R * Taps * V * (WeightGrad ? 2 : 1) <= (I::bytes == 64 ? 22 : 8);
    V_ a[R][Taps][V], w[R][Taps][V];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++)
#pragma GCC unroll 8
        for (int j = 0; j < Taps; j++)
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) {
                if (WeightGrad) a[i][j][v] = load<V_>(weight_grad + ((i * Taps + j) * V + v) * L);
                if (Held) w[i][j][v] = load<V_>(weight + ((i * Taps + j) * V + v) * L);
            }
    for (ptrdiff_t word = 0; word < words; word++) {
        const T *value = plane + word * 64;
        const int32_t *at = offset + word * 64;
        const uint64_t all = mask[word], both = Taps > 1 ? all & all >> 1 & pairs[word] : 0;
        for (uint64_t bits = both; bits; bits &= bits - 1) {
            int p = __builtin_ctzll(bits);
            T *to = InputGrad ? sums + __builtin_popcountll(all & ((1ull << p) - 1)) * L : nullptr;
            grad_products<I, T, V, R, Taps, WeightGrad, InputGrad, Held, true>(
                a, w, block + at[p], row_step, weight, value[p], value[p + 1], to);
        }
        for (uint64_t bits = all & ~(both | both << 1); bits; bits &= bits - 1) {
            int p = __builtin_ctzll(bits);
            T *to = InputGrad ? sums + __builtin_popcountll(all & ((1ull << p) - 1)) * L : nullptr;
            grad_products<I, T, V, R, Taps, WeightGrad, InputGrad, Held, false>(a, w, block + at[p], row_step,
                                                                                weight, value[p], 0, to);
        }
        if (InputGrad)
            grad_add_sums<I, T>(sums, sums + __builtin_popcountll(all) * L, all, input_grad + word * 64);
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++)
#pragma GCC unroll 8
        for (int j = 0; j < Taps; j++)
#pragma GCC unroll 8
            for (int v = 0; v < V; v++)
                if (WeightGrad) store(weight_grad + ((i * Taps + j) * V + v) * L, a[i][j][v]);
}

// ---- one task --------------------------------------------------------------------------------------

// Kernels of R rows at a time (R divides Kh) and Taps columns. `finite` becomes 0 where a map is not.
template <class T, int V, int R, int Taps, bool WeightGrad, bool InputGrad>
struct GradRange {
    template <class I>
    JSC_INLINE void run(const GradTask<T> *task, int *finite) {
        constexpr int L = lanes<I, T>, VL = V * L;
        const GradTask<T> t = *task;
        const ptrdiff_t groups = t.groups(), words = t.words(), plane = groups * words * 64,
                        pitch = t.pitch();
        const ptrdiff_t blocks = (t.Cd + VL - 1) / VL, unit_size = (t.rows + t.Kh - 1) * pitch * VL;
        Vec<I, T> bad = {};
        for (ptrdiff_t q = 0; q < groups; q++) {
            T *planes = t.planes + q * words * 64;
            grad_gather<I, T>(t.S + t.group_offset(q), t.S_offset, t.group_pixels(q), t.channels, plane,
                              planes, bad);
            for (ptrdiff_t c = 0; c < t.channels; c++)
                grad_masks<I, T>(planes + c * plane, t.group_pixels(q), t.mask + (c * groups + q) * words);
        }
        if (InputGrad) memset(t.input_grad_planes, 0, t.channels * plane * sizeof(T));
        for (ptrdiff_t b = 0; b < blocks; b++)
            for (ptrdiff_t q = 0; q < groups; q++) {
                for (ptrdiff_t u = 0; u < t.group_units(q); u++)
                    grad_block<I, T, V>(t, t.unit0 + q * t.group + u, b * VL, t.block + u * unit_size, bad);
                for (ptrdiff_t c = 0; c < t.channels; c++)
                    for (ptrdiff_t i = 0; i < t.Kh; i += R) {
                        ptrdiff_t tap = ((c * blocks + b) * t.Kh + i) * Taps * VL,
                                  at = (c * groups + q) * words;
                        grad_nonzeros<I, T, V, R, Taps, WeightGrad, InputGrad>(
                            t.planes + at * 64, t.mask + at, t.pairs, (t.group_pixels(q) + 63) / 64,
                            t.D_offset, t.block + i * pitch * VL, pitch * VL,
                            InputGrad ? t.weight + tap : nullptr, WeightGrad ? t.weight_grad + tap : nullptr,
                            t.sums, InputGrad ? t.input_grad_planes + at * 64 : nullptr);
                    }
            }
        for (ptrdiff_t q = 0; InputGrad && q < groups; q++)
            grad_scatter<I, T>(t.input_grad_planes + q * words * 64, t.S_offset, t.group_pixels(q),
                               t.channels, plane, t.input_grad + t.group_offset(q));
        for (int l = 0; l < L; l++) *finite &= bad[l] == 0;
    }
};

template <class T, int V, int R, int Taps>
inline void grad_wanted(int isa, const GradTask<T> *t, int *finite) {
    if (t->weight_grad && t->input_grad) dispatch<GradRange<T, V, R, Taps, true, true>>(isa, t, finite);
    else if (t->weight_grad) dispatch<GradRange<T, V, R, Taps, true, false>>(isa, t, finite);
    else dispatch<GradRange<T, V, R, Taps, false, true>>(isa, t, finite);
}

// V is 1 or 2, for kernels of one or two columns 1 or 4; Kw is 1, 2, 3, 5 or 7.
template <class T>
inline void grad_range(int isa, int V, const GradTask<T> *t, int *finite) {
    switch (t->Kw) {
    case 1: return V == 1 ? grad_wanted<T, 1, 1, 1>(isa, t, finite) : grad_wanted<T, 4, 1, 1>(isa, t, finite);
    case 2: return V == 1 ? grad_wanted<T, 1, 1, 2>(isa, t, finite) : grad_wanted<T, 4, 1, 2>(isa, t, finite);
    case 3:
        if (t->Kh == 3)
            return V == 1 ? grad_wanted<T, 1, 3, 3>(isa, t, finite) : grad_wanted<T, 2, 3, 3>(isa, t, finite);
        return V == 1 ? grad_wanted<T, 1, 1, 3>(isa, t, finite) : grad_wanted<T, 2, 1, 3>(isa, t, finite);
    case 5: return V == 1 ? grad_wanted<T, 1, 1, 5>(isa, t, finite) : grad_wanted<T, 2, 1, 5>(isa, t, finite);
    default:
        return V == 1 ? grad_wanted<T, 1, 1, 7>(isa, t, finite) : grad_wanted<T, 2, 1, 7>(isa, t, finite);
    }
}

}  // namespace jsc
