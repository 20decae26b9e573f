// Orthonormal 8x8 DCT-II and its inverse (ITU-T T.81, A.3.3):  Z = D X D',  X = D' Z D,
//   D[k][n] = c(k)/2 cos((2n+1) k pi / 16),  c(0) = 1/sqrt(2), else 1.
// D is orthogonal, so each is the other's gradient.
//
// Layout: lanes across blocks. A pack is as many blocks as a vector has lanes; a vector holds the
// same sample of every block of the pack. So the transform needs no shuffles, a quantiser has one
// table entry per vector, and a NaN cannot leave its block. Rows of 8 samples are turned into that
// layout by transposes inside 16-byte quarters, and blocks may lie anywhere.
//
// A 1-D transform is 34 additions, multiplications and fused multiply-adds: even/odd butterflies,
// then a 4x4 matrix for the odd half.
#pragma once
#include "simd/simd.h"

namespace jsc {

template <class V>
JSC_INLINE void dct8(V x[8]) {
    using T = std::decay_t<decltype(V{}[0])>;
    constexpr T A = 0.35355339059327376220, B = 0.49039264020161522456, C = 0.46193976625564337806,
                E = 0.41573480615127261854, F = 0.27778511650980111237, G = 0.19134171618254488586,
                H = 0.09754516100806413392;
    V s0 = x[0] + x[7], s1 = x[1] + x[6], s2 = x[2] + x[5], s3 = x[3] + x[4];
    V d0 = x[0] - x[7], d1 = x[1] - x[6], d2 = x[2] - x[5], d3 = x[3] - x[4];
    V e0 = s0 + s3, e1 = s1 + s2, e2 = s0 - s3, e3 = s1 - s2;
    x[0] = A * (e0 + e1);
    x[4] = A * (e0 - e1);
    x[2] = C * e2 + G * e3;
    x[6] = G * e2 - C * e3;
    x[1] = B * d0 + E * d1 + F * d2 + H * d3;
    x[3] = E * d0 - H * d1 - B * d2 - F * d3;
    x[5] = F * d0 - B * d1 + H * d2 + E * d3;
    x[7] = H * d0 - F * d1 + E * d2 - B * d3;
}

template <class V>
JSC_INLINE void idct8(V x[8]) {
    using T = std::decay_t<decltype(V{}[0])>;
    constexpr T A = 0.35355339059327376220, B = 0.49039264020161522456, C = 0.46193976625564337806,
                E = 0.41573480615127261854, F = 0.27778511650980111237, G = 0.19134171618254488586,
                H = 0.09754516100806413392;
    V p = A * (x[0] + x[4]), m = A * (x[0] - x[4]);
    V r = C * x[2] + G * x[6], t = G * x[2] - C * x[6];
    V e0 = p + r, e3 = p - r, e1 = m + t, e2 = m - t;
    V o0 = B * x[1] + E * x[3] + F * x[5] + H * x[7];
    V o1 = E * x[1] - H * x[3] - B * x[5] - F * x[7];
    V o2 = F * x[1] - B * x[3] + H * x[5] + E * x[7];
    V o3 = H * x[1] - F * x[3] + E * x[5] - B * x[7];
    x[0] = e0 + o0, x[7] = e0 - o0;
    x[1] = e1 + o1, x[6] = e1 - o1;
    x[2] = e2 + o2, x[5] = e2 - o2;
    x[3] = e3 + o3, x[4] = e3 - o3;
}

template <bool Inverse, class V>
JSC_INLINE void transform(V x[8]) {
    if constexpr (Inverse) idct8(x);
    else dct8(x);
}

// The second direction of a pack whose rows are done; scratch is (8, 8, lanes).
template <bool Inverse, class V, class T>
JSC_INLINE void transform_columns(T *scratch) {
    constexpr int L = sizeof(V) / sizeof(T);
    for (int k = 0; k < 8; k++) {
        V v[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) v[i] = load<V>(scratch + (8 * i + k) * L);
        transform<Inverse>(v);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) store(scratch + (8 * i + k) * L, v[i]);
    }
}

// The work of one chunk, in blocks: a multiple of every pack, fixed, so that sums over chunks do not
// depend on the number of threads or lanes.
constexpr ptrdiff_t CHUNK_BLOCKS = 64;

// Rows of 8 samples of a pack's blocks <-> 8 vectors.
template <class I, class T>
struct Pack {
    typedef Vec<I, T> V;
    static constexpr int L = lanes<I, T>;
    static constexpr int K = 16 / (int)sizeof(T);  // lanes of a quarter
    static constexpr int Q = L / K;                // quarters
    typedef typename VectorOf<T, 16>::type Quarter;

    // Quarter t of v comes from memory, or goes there. Inline assembly, because GCC shuffles through
    // whole registers where one instruction with a memory operand does.
    template <int t>
    JSC_INLINE V insert(V v, const T *from) {
#if defined(JSC_PLAIN)
        for (int k = 0; k < K; k++) v[t * K + k] = from[k];
#elif defined(__x86_64__)
        if constexpr (Q == 2)
            asm("vinsertf128 %2, %1, %0, %0" : "+v"(v) : "m"(*(const Quarter *)from), "i"(t));
        else asm("vinsertf32x4 %2, %1, %0, %0" : "+v"(v) : "m"(*(const Quarter *)from), "i"(t));
#endif
        return v;
    }
    template <int t>
    JSC_INLINE void extract(T *to, V v) {
#if defined(JSC_PLAIN)
        for (int k = 0; k < K; k++) to[k] = v[t * K + k];
#elif defined(__x86_64__)
        if constexpr (Q == 2) asm("vextractf128 %2, %1, %0" : "=m"(*(Quarter *)to) : "v"(v), "i"(t));
        else asm("vextractf32x4 %2, %1, %0" : "=m"(*(Quarter *)to) : "v"(v), "i"(t));
#endif
    }
    JSC_INLINE V widen(const T *from) {
        if constexpr (Q == 1) return load<V>(from);
        V v;
#if defined(JSC_PLAIN)
        v = load_partial<V>(from, K);
#elif defined(__x86_64__)
        asm("vmovups %1, %x0" : "=v"(v) : "m"(*(const Quarter *)from));
#endif
        return v;
    }

    // A quarter of each of Q blocks side by side: blocks j, j + K, ...
    JSC_INLINE V gather(const T *const at[L], int j, ptrdiff_t offset) {
        V v = widen(at[j] + offset);
        if constexpr (Q > 1) v = insert<1>(v, at[j + K] + offset);
        if constexpr (Q > 2) {
            v = insert<2>(v, at[j + 2 * K] + offset);
            v = insert<3>(v, at[j + 3 * K] + offset);
        }
        return v;
    }
    JSC_INLINE void scatter(T *const at[L], int j, ptrdiff_t offset, V v) {
        if constexpr (Q == 1) store(at[j] + offset, v);
        else extract<0>(at[j] + offset, v), extract<1>(at[j + K] + offset, v);
        if constexpr (Q > 2) {
            extract<2>(at[j + 2 * K] + offset, v);
            extract<3>(at[j + 3 * K] + offset, v);
        }
    }

    // Interleave the low (high) halves of the quarters of a and b, in units of `Unit` elements.
    template <int Unit, int High>
    JSC_INLINE V interleave(V a, V b) {
        return interleave_lanes<Unit, High>(a, b, std::make_index_sequence<L>());
    }
    template <int Unit, int High, size_t... l>
    JSC_INLINE V interleave_lanes(V a, V b, std::index_sequence<l...>) {
        return shuffle<source_lane(Unit, High, (int)l)...>(a, b);
    }
    static constexpr int source_lane(int Unit, int High, int i) {
        const int lane = i % K, unit = lane / Unit;
        return (i - lane) + High * K / 2 + (unit / 2) * Unit + lane % Unit + (unit % 2) * L;
    }

    // K vectors, transposed inside every quarter; its own inverse.
    JSC_INLINE void transpose(V v[K]) {
        if constexpr (K == 2) {
            V a = interleave<1, 0>(v[0], v[1]), b = interleave<1, 1>(v[0], v[1]);
            v[0] = a, v[1] = b;
        } else {
            V a = interleave<1, 0>(v[0], v[1]), b = interleave<1, 1>(v[0], v[1]);
            V c = interleave<1, 0>(v[2], v[3]), d = interleave<1, 1>(v[2], v[3]);
            v[0] = interleave<2, 0>(a, c), v[1] = interleave<2, 1>(a, c);
            v[2] = interleave<2, 0>(b, d), v[3] = interleave<2, 1>(b, d);
        }
    }

    JSC_INLINE void load_row(const T *const at[L], ptrdiff_t offset, V v[8]) {
#pragma GCC unroll 4
        for (int part = 0; part < 8; part += K) {
#pragma GCC unroll 4
            for (int j = 0; j < K; j++) v[part + j] = gather(at, j, offset + part);
            transpose(v + part);
        }
    }

    // The same for `width` <= 8 columns.
    JSC_INLINE void load_columns(const T *const at[L], ptrdiff_t offset, int width, V v[8]) {
        if (width == 8) return load_row(at, offset, v);
        for (int k = 0; k < width; k++)
            for (int l = 0; l < L; l++) v[k][l] = at[l][offset + k];
    }
    JSC_INLINE void store_columns(T *const at[L], ptrdiff_t offset, int width, V v[8]) {
        if (width == 8) return store_row(at, offset, v);
        for (int k = 0; k < width; k++)
            for (int l = 0; l < L; l++) at[l][offset + k] = v[k][l];
    }

    JSC_INLINE void store_row(T *const at[L], ptrdiff_t offset, V v[8]) {
#pragma GCC unroll 4
        for (int part = 0; part < 8; part += K) {
            transpose(v + part);
#pragma GCC unroll 4
            for (int j = 0; j < K; j++) scatter(at, j, offset + part, v[part + j]);
        }
    }
};

// `count` <= CHUNK_BLOCKS blocks, from block `first` of a stack of planes with `columns` blocks a row.
// In the last pack, lanes without a block repeat the last one: they compute and write the same values.
template <class T, bool Inverse>
struct BlockDctChunk {
    template <class I>
    JSC_INLINE void run(T *image, T *blocks, ptrdiff_t columns, ptrdiff_t first, ptrdiff_t count) {
        typedef Pack<I, T> P;
        typedef typename P::V V;
        constexpr int L = P::L;
        alignas(64) T scratch[64 * L];
        const ptrdiff_t pitch = 8 * columns;
        const ptrdiff_t from_step = Inverse ? 8 : pitch, to_step = Inverse ? pitch : 8;
        ptrdiff_t column = first % columns;
        T *corner = image + (first / columns) * 64 * columns + 8 * column;
        for (ptrdiff_t b = 0; b < count; b += L) {
            T *pixel[L], *coefficient[L];
            for (int l = 0; l < L; l++) {
                pixel[l] = corner;
                coefficient[l] = blocks + 64 * (first + (b + l < count ? b + l : count - 1));
                if (b + l + 1 >= count) continue;
                corner += 8;
                if (++column == columns) column = 0, corner += 7 * pitch;
            }
            T **from = Inverse ? coefficient : pixel, **to = Inverse ? pixel : coefficient;
            for (int i = 0; i < 8; i++) {
                V v[8];
                P::load_row(from, i * from_step, v);
                transform<Inverse>(v);
                for (int k = 0; k < 8; k++) store(scratch + (8 * i + k) * L, v[k]);
            }
            transform_columns<Inverse, V>(scratch);
            for (int i = 0; i < 8; i++) {
                V v[8];
                for (int k = 0; k < 8; k++) v[k] = load<V>(scratch + (8 * i + k) * L);
                P::store_row(to, i * to_step, v);
            }
        }
    }
};

template <class T>
inline void block_dct_chunk(int isa, const T *image, T *blocks, ptrdiff_t columns, ptrdiff_t first,
                            ptrdiff_t count) {
    dispatch<BlockDctChunk<T, false>>(isa, (T *)image, blocks, columns, first, count);
}
template <class T>
inline void block_idct_chunk(int isa, const T *blocks, T *image, ptrdiff_t columns, ptrdiff_t first,
                             ptrdiff_t count) {
    dispatch<BlockDctChunk<T, true>>(isa, image, (T *)blocks, columns, first, count);
}

}  // namespace jsc
