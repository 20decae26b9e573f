// What a step of a compiled network is.
//
// A map is a tensor of float32, or with `bf16` of bfloat16, with a step for each axis, inside one of the
// call's regions of memory: the arena (region 0), an input or an output. Element (n, h, w, c) of it lies at
//
//   region + offset + n image + h row + w pixel + c channel
//
// (all counted in its numbers). In maps that instructions read and write `channel` is 1; only `Copy` takes
// others. A wider `pixel` is a slice of the channels of a wider map: what a concatenation becomes.
//
// An instruction is made once and never changes: several calls may run it at a time. It says into how many
// tasks its work is cut; each output element belongs to one task and is summed up in one order, so that
// the bits do not depend on who runs which task. Nothing here knows of Python or of OpenMP.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "simd/simd.h"

namespace jsc::network {

struct Map {
    int64_t region, offset;
    int64_t N, H, W, C;
    int64_t image, row, pixel, channel;
    int64_t bf16;
};

// What belongs to one call and one thread of it.
struct Call {
    char *const *regions;
    char *scratch;
};

template <class T = float>
JSC_INLINE T *at(const Map &map, const Call &call, int64_t n = 0, int64_t h = 0, int64_t w = 0) {
    return (T *)call.regions[map.region] + map.offset + n * map.image + h * map.row + w * map.pixel;
}
// Constants (weights, tables) belong to the program and are given by address.
template <class T = float>
JSC_INLINE const T *constant(uint64_t address) {
    return (const T *)(uintptr_t)address;
}

struct Instruction {
    virtual ~Instruction() = default;
    virtual int64_t rounds() const { return 1; }
    virtual int64_t tasks(int64_t round) const = 0;
    virtual int64_t scratch_bytes() const { return 0; }  // of each thread
    virtual void run(int isa, int64_t round, int64_t task, const Call &call) const = 0;
};

JSC_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Kernel<X, T> for an input of X and an output of T: float, or uint16_t for bfloat16.
template <template <class X, class T> class Kernel, class... A>
void dispatch_maps(int isa, const Map &x, const Map &out, A... a) {
#if defined(__x86_64__)
    if (x.bf16 && out.bf16) return run_avx512<Kernel<uint16_t, uint16_t>>(a...);
    if (x.bf16) return run_avx512<Kernel<uint16_t, float>>(a...);
    if (out.bf16) return run_avx512<Kernel<float, uint16_t>>(a...);
#endif
    dispatch<Kernel<float, float>>(isa, a...);
}
// Kernel<T> for maps that are all of T.
template <template <class T> class Kernel, class... A>
void dispatch_maps(int isa, const Map &out, A... a) {
#if defined(__x86_64__)
    if (out.bf16) return run_avx512<Kernel<uint16_t>>(a...);
#endif
    dispatch<Kernel<float>>(isa, a...);
}

// Rows are shared out in bands of about this many floats: some microseconds of work.
constexpr int64_t band_floats = 16384;
inline int64_t rows_to_a_band(int64_t H, int64_t floats_to_a_row) {
    return std::max<int64_t>(1, std::min(H, band_floats / std::max<int64_t>(1, floats_to_a_row)));
}

}  // namespace jsc::network
