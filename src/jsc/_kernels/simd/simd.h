// Vectors of any width from the compiler's vector extensions: arithmetic, comparisons and ternaries
// are written with the ordinary operators. Loads and stores never assume more alignment than the
// element's, because user memory may have none.
#pragma once
#include <type_traits>
#include <utility>

#include "simd/isa.h"
#if defined(JSC_PLAIN)
#include "simd/emulate.h"
#endif

namespace jsc {

template <class T, int Bytes>
struct VectorOf {
#if defined(__clang__)  // forgets the alignment of a type that is a template's argument: see `load`
    typedef T type __attribute__((vector_size(Bytes)));
#else
    typedef T type __attribute__((vector_size(Bytes), aligned(sizeof(T)), may_alias));
#endif
};

// The widest vector of T on instruction set I, and its number of lanes.
template <class I, class T>
using Vec = typename VectorOf<T, I::bytes>::type;
template <class I, class T>
constexpr int lanes = I::bytes / (int)sizeof(T);

template <class V, class T>
JSC_INLINE V load(const T *p) {
#if defined(__clang__)
    V v;
    __builtin_memcpy(&v, p, sizeof(V));
    return v;
#else
    return *(const V *)p;
#endif
}
template <class V, class T>
JSC_INLINE void store(T *p, V v) {
#if defined(__clang__)
    __builtin_memcpy(p, &v, sizeof(V));
#else
    *(V *)p = v;
#endif
}

// The first n lanes (n < lanes); the others are zero, and memory behind them is not touched.
template <class V, class T>
JSC_INLINE V load_partial(const T *p, int n) {
    V v = {};
    for (int i = 0; i < n; i++) v[i] = p[i];
    return v;
}
template <class V, class T>
JSC_INLINE void store_partial(T *p, V v, int n) {
    for (int i = 0; i < n; i++) p[i] = v[i];
}

// Tells the compiler to have the value in a register here: without it GCC reads a vector again from
// memory for its second use (folding both loads into arithmetic), and folds an index into every
// address, which splits each multiply-add into two micro-operations.
template <class V>
JSC_INLINE void keep_in_register(V &value) {
#if defined(JSC_PLAIN)
    (void)value;
#elif defined(__x86_64__)
    if constexpr (std::is_pointer_v<V>) asm("" : "+r"(value));
    else asm("" : "+v"(value));
#endif
}

// Bit i is set where lane i is not zero (NaN counts, -0.0 does not). The one operation that the
// vector extensions cannot say; written as inline assembly because an intrinsic may only be called
// from a function that carries its target attribute, which an inline template does not.
template <class V>
JSC_INLINE uint32_t nonzero_mask(V v) {
#if defined(JSC_PLAIN)
    return emulate_nonzero(v);
#elif defined(__x86_64__)
    using T = std::decay_t<decltype(v[0])>;
    constexpr bool is_float = std::is_same_v<T, float>;
    uint32_t mask;
    if constexpr (sizeof(V) == 64) {
        V zero = {};
        if constexpr (is_float)
            asm("vcmpps $4, %2, %1, %%k1\n\tkmovw %%k1, %0" : "=r"(mask) : "v"(v), "v"(zero) : "k1");
        else asm("vcmppd $4, %2, %1, %%k1\n\tkmovw %%k1, %0" : "=r"(mask) : "v"(v), "v"(zero) : "k1");
    } else {
        auto bits = (v != 0);
        if constexpr (sizeof(V) == 32 && is_float) asm("vmovmskps %1, %0" : "=r"(mask) : "x"(bits));
        else if constexpr (sizeof(V) == 32) asm("vmovmskpd %1, %0" : "=r"(mask) : "x"(bits));
        else if constexpr (is_float) asm("movmskps %1, %0" : "=r"(mask) : "x"(bits));
        else asm("movmskpd %1, %0" : "=r"(mask) : "x"(bits));
    }
    return mask;
#else
    uint32_t mask = 0;
    for (unsigned i = 0; i < sizeof(V) / sizeof(v[0]); i++) mask |= (uint32_t)(v[i] != 0) << i;
    return mask;
#endif
}

// Whether x > y in any lane. Not of nonzero_mask: the compiler would make a vector of the comparison first.
template <class V>
JSC_INLINE bool any_above(V x, V y) {
#if defined(__x86_64__) && !defined(JSC_PLAIN)
    if constexpr (sizeof(V) == 64) {
        bool found;
        if constexpr (sizeof(x[0]) == 4)
            asm("vcmpps $14, %2, %1, %%k1\n\tkortestw %%k1, %%k1" : "=@ccnz"(found) : "v"(x), "v"(y) : "k1");
        else asm("vcmppd $14, %2, %1, %%k1\n\tkortestb %%k1, %%k1" : "=@ccnz"(found) : "v"(x), "v"(y) : "k1");
        return found;
    }
#endif
    V above = {};
    above = x > y ? above + 1 : above;
    return nonzero_mask(above) != 0;
}

// max(x, low) and min(x, high), where NaN stays: the instruction returns its second operand then. GCC makes
// a comparison and a blend of the same in C++.
template <class V>
JSC_INLINE V at_least(V x, V low) {
#if defined(__x86_64__) && !defined(JSC_PLAIN)
    if constexpr (sizeof(V) > 16) {
        if constexpr (sizeof(x[0]) == 4) asm("vmaxps %1, %2, %0" : "=v"(x) : "v"(x), "v"(low));
        else asm("vmaxpd %1, %2, %0" : "=v"(x) : "v"(x), "v"(low));
        return x;
    }
#endif
    return x < low ? low : x;
}
template <class V>
JSC_INLINE V at_most(V x, V high) {
#if defined(__x86_64__) && !defined(JSC_PLAIN)
    if constexpr (sizeof(V) > 16) {
        if constexpr (sizeof(x[0]) == 4) asm("vminps %1, %2, %0" : "=v"(x) : "v"(x), "v"(high));
        else asm("vminpd %1, %2, %0" : "=v"(x) : "v"(x), "v"(high));
        return x;
    }
#endif
    return x > high ? high : x;
}

// Lane i of the result is lane `lane[i]` of a and b side by side.
template <int... lane, class V>
JSC_INLINE V shuffle(V a, V b) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, lane...);
#else
    typedef decltype(a < b) Order;
    return __builtin_shuffle(a, b, Order{lane...});
#endif
}

// The transpose of an L x L matrix held in L vectors: log2(L) rounds of two-input permutations.
template <class V, int Bit, size_t... l>
JSC_INLINE void exchange(V &a, V &b, std::index_sequence<l...>) {
    constexpr int L = sizeof...(l);
    V first = shuffle<((int)l & Bit ? L + ((int)l ^ Bit) : (int)l)...>(a, b);
    b = shuffle<((int)l & Bit ? L + (int)l : (int)l | Bit)...>(a, b);
    a = first;
}
template <class V, int Bit, int L>
JSC_INLINE void transpose_round(V *v) {
#pragma GCC unroll 16
    for (int i = 0; i < L; i++)
        if (!(i & Bit)) exchange<V, Bit>(v[i], v[i | Bit], std::make_index_sequence<L>());
    if constexpr (2 * Bit < L) transpose_round<V, 2 * Bit, L>(v);
}
template <class I, class T>
JSC_INLINE void transpose(Vec<I, T> *v) {
    transpose_round<Vec<I, T>, 1, lanes<I, T>>(v);
}

// AVX-512 only. The lanes whose bits are set moved to the front, and back (the others become zero).
template <class V>
JSC_INLINE V compress_lanes(V v, uint32_t bits) {
    V packed = {};
#if defined(JSC_PLAIN)
    return emulate_compress(v, bits);
#elif defined(__x86_64__)
    if constexpr (sizeof(v[0]) == 4)
        asm("kmovw %2, %%k1\n\tvcompressps %1, %0%{%%k1%}%{z%}" : "=v"(packed) : "v"(v), "r"(bits) : "k1");
    else asm("kmovw %2, %%k1\n\tvcompresspd %1, %0%{%%k1%}%{z%}" : "=v"(packed) : "v"(v), "r"(bits) : "k1");
#endif
    return packed;
}
// The same for the lanes that are not zero; `bits` says which.
template <class V>
JSC_INLINE V compress_nonzero(V v, uint32_t &bits) {
    V packed = {};
    [[maybe_unused]] V zero = {};
    bits = 0;
#if defined(JSC_PLAIN)
    return emulate_compress(v, bits = emulate_nonzero(v));
#elif defined(__x86_64__)
    if constexpr (sizeof(v[0]) == 4)
        asm("vcmpps $4, %3, %2, %%k1\n\tvcompressps %2, %0%{%%k1%}%{z%}\n\tkmovw %%k1, %1"
            : "=&v"(packed), "=r"(bits)
            : "v"(v), "v"(zero)
            : "k1");
    else
        asm("vcmppd $4, %3, %2, %%k1\n\tvcompresspd %2, %0%{%%k1%}%{z%}\n\tkmovw %%k1, %1"
            : "=&v"(packed), "=r"(bits)
            : "v"(v), "v"(zero)
            : "k1");
#endif
    return packed;
}
template <class V>
JSC_INLINE V expand_lanes(V packed, uint32_t bits) {
    V v = {};
#if defined(JSC_PLAIN)
    return emulate_expand(packed, bits);
#elif defined(__x86_64__)
    if constexpr (sizeof(v[0]) == 4)
        asm("kmovw %2, %%k1\n\tvexpandps %1, %0%{%%k1%}%{z%}" : "=v"(v) : "v"(packed), "r"(bits) : "k1");
    else asm("kmovw %2, %%k1\n\tvexpandpd %1, %0%{%%k1%}%{z%}" : "=v"(v) : "v"(packed), "r"(bits) : "k1");
#endif
    return v;
}

}  // namespace jsc
