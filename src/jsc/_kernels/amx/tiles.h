// AMX tiles, and the products of a step of a task (product.h).
#pragma once
#include <cstddef>
#include <cstdint>

#include "simd/simd.h"

namespace jsc {

constexpr int AMX_TILE = 16 * 32;  // numbers in an operand tile: 16 rows of 32 bfloat16

// ---- tiles -----------------------------------------------------------------------------------------

#if defined(JSC_EMULATE)
#define JSC_TILE_LOAD(tile, from, stride) emulate_tile_load(tile, from, stride)
#define JSC_TILE_STORE(tile, to, stride) emulate_tile_store(tile, to, stride)
#define JSC_TILE_PRODUCT(sum, a, b) emulate_tile_product(sum, a, b)
#elif defined(__x86_64__) && !defined(__clang__)
#define JSC_TILE_LOAD(tile, from, stride)                                                                    \
    asm volatile("tileloadd (%0,%1,1), %%tmm" #tile::"r"(from), "r"((ptrdiff_t)(stride)) : "memory")
#define JSC_TILE_STORE(tile, to, stride)                                                                     \
    asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"((ptrdiff_t)(stride)) : "memory")
#define JSC_TILE_PRODUCT(sum, a, b) asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum::)
#else
#define JSC_TILE_LOAD(tile, from, stride) ((void)(from), (void)(stride))
#define JSC_TILE_STORE(tile, to, stride) ((void)(to), (void)(stride))
#define JSC_TILE_PRODUCT(sum, a, b) ((void)0)
#endif

// All eight tiles are 16 rows of 64 bytes. Between `amx_begin` and `amx_end` a thread has the
// tiles' state, which a context switch must save.
inline void amx_begin() {
#if defined(JSC_EMULATE)
    emulate_tiles_begin();
#elif defined(__x86_64__) && !defined(__clang__)
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {};
    config.palette = 1;
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
    asm volatile("ldtilecfg %0" ::"m"(config));
#endif
}
inline void amx_end() {
#if defined(__x86_64__) && !defined(JSC_PLAIN)
    asm volatile("tilerelease" ::);
#endif
}

// ---- steps -----------------------------------------------------------------------------------------

// clang-format off: a line is a group of products that share an operand
// One step of 32 pixels by 32 filters, of operands in so many pieces. Each product of pieces is taken for
// all four sums before the next, and shares an operand with its neighbours; with three pieces sums are 52
// cycles apart, products 16.
template <int Pieces>
JSC_INLINE void amx_step(const uint16_t *a, ptrdiff_t piece, ptrdiff_t half, ptrdiff_t stride,
                         const uint16_t *w) {
    const uint16_t *a1 = a, *a2 = a + piece, *a3 = a2 + piece;
    constexpr int T = AMX_TILE;
    if constexpr (Pieces == 1) {
        JSC_TILE_LOAD(4, a1, stride); JSC_TILE_LOAD(6, w, 64); JSC_TILE_PRODUCT(0, 4, 6);
        JSC_TILE_LOAD(7, w + T, 64); JSC_TILE_PRODUCT(1, 4, 7);
        JSC_TILE_LOAD(5, a1 + half, stride); JSC_TILE_PRODUCT(2, 5, 6); JSC_TILE_PRODUCT(3, 5, 7);
        return;
    }
    if constexpr (Pieces == 2) {
        JSC_TILE_LOAD(4, a2, stride); JSC_TILE_LOAD(6, w, 64); JSC_TILE_PRODUCT(0, 4, 6);
        JSC_TILE_LOAD(7, w + T, 64); JSC_TILE_PRODUCT(1, 4, 7);
        JSC_TILE_LOAD(5, a2 + half, stride); JSC_TILE_PRODUCT(2, 5, 6); JSC_TILE_PRODUCT(3, 5, 7);
        JSC_TILE_LOAD(4, a1, stride); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(1, 4, 7);
        JSC_TILE_LOAD(5, a1 + half, stride); JSC_TILE_PRODUCT(2, 5, 6); JSC_TILE_PRODUCT(3, 5, 7);
        JSC_TILE_LOAD(6, w + 2 * T, 64); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(2, 5, 6);
        JSC_TILE_LOAD(7, w + 3 * T, 64); JSC_TILE_PRODUCT(1, 4, 7); JSC_TILE_PRODUCT(3, 5, 7);
        return;
    }
    JSC_TILE_LOAD(4, a3, stride); JSC_TILE_LOAD(6, w, 64); JSC_TILE_PRODUCT(0, 4, 6);
    JSC_TILE_LOAD(7, w + T, 64); JSC_TILE_PRODUCT(1, 4, 7);
    JSC_TILE_LOAD(5, a3 + half, stride); JSC_TILE_PRODUCT(2, 5, 6); JSC_TILE_PRODUCT(3, 5, 7);
    JSC_TILE_LOAD(4, a2, stride); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(1, 4, 7);
    JSC_TILE_LOAD(5, a2 + half, stride); JSC_TILE_PRODUCT(2, 5, 6); JSC_TILE_PRODUCT(3, 5, 7);
    JSC_TILE_LOAD(6, w + 2 * T, 64); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(2, 5, 6);
    JSC_TILE_LOAD(7, w + 3 * T, 64); JSC_TILE_PRODUCT(1, 4, 7); JSC_TILE_PRODUCT(3, 5, 7);
    JSC_TILE_LOAD(4, a1, stride); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(1, 4, 7);
    JSC_TILE_LOAD(5, a1 + half, stride); JSC_TILE_PRODUCT(2, 5, 6); JSC_TILE_PRODUCT(3, 5, 7);
    JSC_TILE_LOAD(6, w + 4 * T, 64); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(2, 5, 6);
    JSC_TILE_LOAD(7, w + 5 * T, 64); JSC_TILE_PRODUCT(1, 4, 7); JSC_TILE_PRODUCT(3, 5, 7);
    JSC_TILE_LOAD(6, w, 64); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(2, 5, 6);
    JSC_TILE_LOAD(7, w + T, 64); JSC_TILE_PRODUCT(1, 4, 7); JSC_TILE_PRODUCT(3, 5, 7);
}

// The same sums for 16 pixels, in sums 0 and 1.
template <int Pieces>
JSC_INLINE void amx_half_step(const uint16_t *a, ptrdiff_t piece, ptrdiff_t stride, const uint16_t *w) {
    const uint16_t *a1 = a, *a2 = a + piece, *a3 = a2 + piece;
    constexpr int T = AMX_TILE;
    if constexpr (Pieces == 1) {
        JSC_TILE_LOAD(4, a1, stride);
        JSC_TILE_LOAD(6, w, 64); JSC_TILE_PRODUCT(0, 4, 6);
        JSC_TILE_LOAD(7, w + T, 64); JSC_TILE_PRODUCT(1, 4, 7);
        return;
    }
    if constexpr (Pieces == 2) {
        JSC_TILE_LOAD(4, a2, stride); JSC_TILE_LOAD(6, w, 64); JSC_TILE_PRODUCT(0, 4, 6);
        JSC_TILE_LOAD(7, w + T, 64); JSC_TILE_PRODUCT(1, 4, 7);
        JSC_TILE_LOAD(4, a1, stride);
        JSC_TILE_LOAD(5, w + 2 * T, 64); JSC_TILE_PRODUCT(0, 4, 5);
        JSC_TILE_LOAD(5, w + 3 * T, 64); JSC_TILE_PRODUCT(1, 4, 5);
        JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(1, 4, 7);
        return;
    }
    JSC_TILE_LOAD(4, a3, stride); JSC_TILE_LOAD(6, w, 64); JSC_TILE_PRODUCT(0, 4, 6);
    JSC_TILE_LOAD(7, w + T, 64); JSC_TILE_PRODUCT(1, 4, 7);
    JSC_TILE_LOAD(4, a2, stride); JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(1, 4, 7);
    JSC_TILE_LOAD(5, w + 2 * T, 64); JSC_TILE_PRODUCT(0, 4, 5);
    JSC_TILE_LOAD(5, w + 3 * T, 64); JSC_TILE_PRODUCT(1, 4, 5);
    JSC_TILE_LOAD(4, a1, stride);
    JSC_TILE_LOAD(5, w + 2 * T, 64); JSC_TILE_PRODUCT(0, 4, 5);
    JSC_TILE_LOAD(5, w + 3 * T, 64); JSC_TILE_PRODUCT(1, 4, 5);
    JSC_TILE_LOAD(5, w + 4 * T, 64); JSC_TILE_PRODUCT(0, 4, 5);
    JSC_TILE_LOAD(5, w + 5 * T, 64); JSC_TILE_PRODUCT(1, 4, 5);
    JSC_TILE_PRODUCT(0, 4, 6); JSC_TILE_PRODUCT(1, 4, 7);
}

// One step of 64 pixels by 16 filters: sum n is that of the pixels 16 n .. 16 n + 15.
template <int Pieces>
JSC_INLINE void amx_narrow_step(const uint16_t *a, ptrdiff_t piece, ptrdiff_t half, ptrdiff_t stride,
                                   const uint16_t *w) {
    constexpr int T = AMX_TILE;
    if constexpr (Pieces == 1) {
        JSC_TILE_LOAD(5, w, 64);
        JSC_TILE_LOAD(4, a, stride); JSC_TILE_PRODUCT(0, 4, 5);
        JSC_TILE_LOAD(6, a + half, stride); JSC_TILE_PRODUCT(1, 6, 5);
        JSC_TILE_LOAD(4, a + 2 * half, stride); JSC_TILE_PRODUCT(2, 4, 5);
        JSC_TILE_LOAD(6, a + 3 * half, stride); JSC_TILE_PRODUCT(3, 6, 5);
        return;
    }
    if constexpr (Pieces == 2) {
        JSC_TILE_LOAD(5, w, 64); JSC_TILE_LOAD(6, w + 2 * T, 64);
        for (int again = 1; again >= 0; again--) {  // the second pieces of the pixels, then the first
            const uint16_t *x = a + again * piece;
            JSC_TILE_LOAD(4, x, stride); JSC_TILE_PRODUCT(0, 4, 5);
            if (!again) JSC_TILE_PRODUCT(0, 4, 6);
            JSC_TILE_LOAD(7, x + half, stride); JSC_TILE_PRODUCT(1, 7, 5);
            if (!again) JSC_TILE_PRODUCT(1, 7, 6);
            JSC_TILE_LOAD(4, x + 2 * half, stride); JSC_TILE_PRODUCT(2, 4, 5);
            if (!again) JSC_TILE_PRODUCT(2, 4, 6);
            JSC_TILE_LOAD(7, x + 3 * half, stride); JSC_TILE_PRODUCT(3, 7, 5);
            if (!again) JSC_TILE_PRODUCT(3, 7, 6);
        }
        return;
    }
    JSC_TILE_LOAD(5, w, 64); JSC_TILE_LOAD(6, w + 2 * T, 64); JSC_TILE_LOAD(7, w + 4 * T, 64);
    const uint16_t *x = a + 2 * piece;
    JSC_TILE_LOAD(4, x, stride); JSC_TILE_PRODUCT(0, 4, 5);
    JSC_TILE_LOAD(4, x + half, stride); JSC_TILE_PRODUCT(1, 4, 5);
    JSC_TILE_LOAD(4, x + 2 * half, stride); JSC_TILE_PRODUCT(2, 4, 5);
    JSC_TILE_LOAD(4, x + 3 * half, stride); JSC_TILE_PRODUCT(3, 4, 5);
    x = a + piece;
    JSC_TILE_LOAD(4, x, stride); JSC_TILE_PRODUCT(0, 4, 5); JSC_TILE_PRODUCT(0, 4, 6);
    JSC_TILE_LOAD(4, x + half, stride); JSC_TILE_PRODUCT(1, 4, 5); JSC_TILE_PRODUCT(1, 4, 6);
    JSC_TILE_LOAD(4, x + 2 * half, stride); JSC_TILE_PRODUCT(2, 4, 5); JSC_TILE_PRODUCT(2, 4, 6);
    JSC_TILE_LOAD(4, x + 3 * half, stride); JSC_TILE_PRODUCT(3, 4, 5); JSC_TILE_PRODUCT(3, 4, 6);
    x = a;
    JSC_TILE_LOAD(4, x, stride); JSC_TILE_PRODUCT(0, 4, 6);
    JSC_TILE_PRODUCT(0, 4, 7); JSC_TILE_PRODUCT(0, 4, 5);
    JSC_TILE_LOAD(4, x + half, stride); JSC_TILE_PRODUCT(1, 4, 6);
    JSC_TILE_PRODUCT(1, 4, 7); JSC_TILE_PRODUCT(1, 4, 5);
    JSC_TILE_LOAD(4, x + 2 * half, stride); JSC_TILE_PRODUCT(2, 4, 6);
    JSC_TILE_PRODUCT(2, 4, 7); JSC_TILE_PRODUCT(2, 4, 5);
    JSC_TILE_LOAD(4, x + 3 * half, stride); JSC_TILE_PRODUCT(3, 4, 6);
    JSC_TILE_PRODUCT(3, 4, 7); JSC_TILE_PRODUCT(3, 4, 5);
}
// clang-format on

}  // namespace jsc
