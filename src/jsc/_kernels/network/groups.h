// Loops over the channels of a pixel: full vectors first, then four channels, then single ones, so that
// nothing behind the last channel is read or written.
#pragma once
#include "network/instruction.h"

namespace jsc::network {

// `vectors` vectors of `bytes` bytes: what the body of a loop takes its types from. (A vector type that is
// itself the argument of a class template loses its alignment of one float.)
template <int bytes, int n>
struct Group {
    using Vector = typename VectorOf<float, bytes>::type;
    static constexpr int vectors = n, lanes = bytes / 4, floats = n * lanes;
};

// body(Group<..>{}, c) for channels first, ..., end - 1, `vectors` full vectors at a time where there are as
// many. The body is an always-inline lambda; every channel comes up once, in rising order.
template <class I, int vectors, class Body>
JSC_INLINE void each_channel(int64_t first, int64_t end, Body body) {
    constexpr int L = lanes<I, float>;
    int64_t c = first;
    if constexpr (vectors > 1)
        for (; c + vectors * L <= end; c += vectors * L) body(Group<I::bytes, vectors>{}, c);
    for (; c + L <= end; c += L) body(Group<I::bytes, 1>{}, c);
    if constexpr (I::bytes > 16)
        for (; c + 4 <= end; c += 4) body(Group<16, 1>{}, c);
    for (; c < end; c++) body(Group<4, 1>{}, c);
}
#define JSC_BODY __attribute__((always_inline))

}  // namespace jsc::network
