// amx: dense float32 convolution on AMX tiles, whose multipliers take bfloat16 only.
//
//   out[k, y, x] = bias[k] + sum_{c, i, j} in[c, y Sh + i Dh - Ph, x Sw + j Dw - Pw] weight[k, c, i, j]
//
// and in its store, where wanted, what follows it: relu(out + residual).
//
// A float32 has 24 significant bits, a bfloat16 has 8: every float is the sum a1 + a2 + a3 of its
// rounding to bfloat16 and the roundings of what is left, exactly. Of the nine products of two such
// sums the six largest are added up in float32 (oneMKL's compute mode bf16x3, Henry, Tang
// and Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision
// Computations", ARITH 2019):
//
//   a b = a1 b1 + (a1 b2 + a2 b1) + (a1 b3 + a2 b2 + a3 b1) + error, |error| < 2^-22 |a b|
//
// That is the precision "ieee" (`pieces` 3). At "tf32" (2) operands are a1 + a2, products the first three:
// |error| < 2^-14 |a b|. At "bf16" (1) there is a1 b1 alone, with some 2^-7 |a b|. Weights that were packed
// with more pieces than are multiplied serve as well.
//
// Layout
//   input    channels-last (N, H, W, C) float32; with one piece it and the output may be bfloat16
//   planes   of a band of output rows: (chunks, pieces, phases, rows, pitch, c) bfloat16 with c channels
//            to a chunk; phase p, row r holds input row r Sh + p - Ph, column q input column
//            q step - Pw; zeros in the padding. The right padding of a row is the left one of the next
//   windows  where channels are few, instead: (pieces, rows, Ow, numbers of a window, a multiple of 32)
//   steps    a step is 32 numbers a pixel: of a window, or 32 / c neighbouring taps of a kernel row and chunk
//   weights  (K blocks, steps, packed pieces, 32 filters as 2 tiles, 16 pairs of numbers, 16 filters, 2)
//            bfloat16; zero where there is no filter, channel or tap
//
// Output pixels are numbered along the planes' pitch, q = row * (pitch / Sw) + column: a tap is then the
// same shift for every pixel, and 16 consecutive q are one operand tile, read where it lies. The few q
// beyond a row's end are computed and not stored. Four accumulator tiles hold 32 pixels by 32 filters (or
// 64 by 16) and stay in registers through all steps: 14 loads of a kB for 24 products of 16 cycles.
//
// Ladder (ieee, G multiply-adds of the convolution a second on one core, 1560 / 6 = 260 at best; a 3x3 of 128
// channels at 28, 256 at 14, a 1x1 of 64 -> 256 at 56; dense float32 in torch 80, 50, 75)
//   three steps a pass, partial sums in L1              188   166   122
//   all steps, accumulators never stored                220   197   112
//   64 pixels and 16 filters instead of 32 and 32       218   189    66
// A 7x7 of 3 channels at 224, stride 2: planes of 4 channels a pixel 84, windows 90; a 3x3 of 3 at 299: 24,
// 33.
// Tried and dropped: fetching the lines of the output, or the next filters, meanwhile (nothing, 5 % where
// weights are large), stores past the caches (nothing), chunks outside and pixels inside while splitting (5 %
// slower). What bounds it: products where there are many steps; where there are few, reading the input,
// writing the output and splitting, 14 cycles for 32 numbers; weights that come from memory, 6 bytes each.
//
// Numerics: each output starts from its bias and adds its products in the order (chunk, kernel row, taps,
// products as in `amx_step`), the pairs of channels in the tile's own order: the same bits for every
// thread count and batch split. Integers are exact as long as float32 is. Numbers below 2^-126 count as
// zero, in products and in the pieces: what is below 2^-102 loses its last bits. NaN, inf and numbers that
// round to inf in bfloat16 have no such sum: `bad` is set where the input has one, and the caller
// convolves in another way.
#pragma once
#include "amx/split.h"
#include "amx/tiles.h"
#include "simd/numbers.h"

namespace jsc {

constexpr int AMX_BLOCK = 32;  // filters to a block, pixels to a task's step

// What a task needs to know; in elements, `x` at the band's planes.
struct AmxTask {
    const uint16_t *x;
    const uint16_t *weight;  // of the filter block
    ptrdiff_t weight_step;  // numbers to a step and block, of all pieces that were packed
    int pieces;  // that are multiplied
    const float *bias;  // 32 numbers of the filter block
    const ptrdiff_t *offset;  // (steps): from x to the step's first pixel, first piece
    const char *residual;  // of the same pixels and filters as `out`: + residual; or null
    bool relu;
    char *out;  // the band's first row, the block's first filter
    ptrdiff_t out_bytes;  // of a number of the output and the residual: 4, or 2 of bfloat16
    float *sums;  // SCRATCH 1024 numbers
    ptrdiff_t steps, piece, pixel;  // from a piece, pixel q to the next
    ptrdiff_t pitch, Ow, K;  // q's to a row, outputs to a row, filters of the layer
    ptrdiff_t out_pitch, residual_pitch;  // from an output to the next
    ptrdiff_t first, end;  // the task's own q's; `first` is a multiple of 32
    int filters;  // of the block that exist, at most 32
};

// To another pixel of the output, and to a block of filters.
inline void amx_advance(AmxTask &t, ptrdiff_t pixels) {
    t.out += pixels * t.out_pitch * t.out_bytes;
    if (t.residual) t.residual += pixels * t.residual_pitch * t.out_bytes;
}
inline void amx_select(AmxTask &t, ptrdiff_t block) {
    const ptrdiff_t k = block * AMX_BLOCK;
    t.out += k * t.out_bytes;
    if (t.residual) t.residual += k * t.out_bytes;
    t.weight += block * t.steps * t.weight_step;
    t.bias += k;
    t.filters = t.K - k < AMX_BLOCK ? (int)(t.K - k) : AMX_BLOCK;
}

// ---- one task --------------------------------------------------------------------------------------

// Sums of the pixels q .. end - 1, 16 pixels by 16 filters to a tile, `tiles` of filters to a pixel, to
// the outputs that exist: relu(sum + residual).
template <class T>  // the numbers of the output and the residual
struct AmxStore {
    template <class I>
    JSC_INLINE void run(const AmxTask *task, ptrdiff_t q, ptrdiff_t end, int tiles) {
        using V = Vec<I, float>;
        constexpr int L = lanes<I, float>;
        static_assert(L == 16, "a vector is a row of a tile");
        const AmxTask &t = *task;
        ptrdiff_t row = q / t.pitch, column = q - row * t.pitch;
        for (ptrdiff_t p = 0; p < end - q; p++, column++) {
            if (column == t.pitch) column = 0, row++;
            if (column >= t.Ow) continue;
            const ptrdiff_t at = row * t.Ow + column;
            T *out = (T *)t.out + at * t.out_pitch;
            const T *residual = t.residual ? (const T *)t.residual + at * t.residual_pitch : nullptr;
            const float *from = t.sums + (p >> 4) * tiles * 256 + (p & 15) * 16;
            for (int k = 0; k < 16 * tiles && k < t.filters; k += 16, from += 256) {
                const int n = t.filters - k;
                V value = load<V>(from);
                if (residual)
                    value += n < L ? load_partial_numbers<V>(residual + k, n) : load_numbers<V>(residual + k);
                if (t.relu) value = value < 0 ? V{} : value;  // as torch's: NaN and -0.0 stay
                if (n < L) store_partial_numbers(out + k, value, n);
                else store_numbers(out + k, value);
            }
        }
    }
};

inline void amx_store(const AmxTask &t, ptrdiff_t q, ptrdiff_t end, int tiles) {
    if (end > t.end) end = t.end;
    if (t.out_bytes == 2) amx_run<AmxStore<uint16_t>>(&t, q, end, tiles);
    else amx_run<AmxStore<float>>(&t, q, end, tiles);
}

inline void amx_store_sums(float *sums) {
    JSC_TILE_STORE(0, sums, 64);
    JSC_TILE_STORE(1, sums + 256, 64);
    JSC_TILE_STORE(2, sums + 512, 64);
    JSC_TILE_STORE(3, sums + 768, 64);
}

template <int Pieces>
inline void amx_task_of(const AmxTask *task) {
    const AmxTask &t = *task;
    const ptrdiff_t stride = t.pixel * (ptrdiff_t)sizeof(uint16_t), half = 16 * t.pixel;
    const ptrdiff_t step = t.weight_step;
    const bool plain = !t.residual && !t.relu && t.out_bytes == 4;
    ptrdiff_t q = t.first;
    for (; t.filters <= 16 && t.end - q > 32; q += 64) {
        const uint16_t *x = t.x + q * t.pixel, *w = t.weight;
        JSC_TILE_LOAD(0, t.bias, 0);  // sixteen times the same row
        JSC_TILE_LOAD(1, t.bias, 0);
        JSC_TILE_LOAD(2, t.bias, 0);
        JSC_TILE_LOAD(3, t.bias, 0);
        for (ptrdiff_t s = 0; s < t.steps; s++, w += step)
            amx_narrow_step<Pieces>(x + t.offset[s], t.piece, half, stride, w);
        amx_store_sums(t.sums);
        amx_store(t, q, q + 64, 1);
    }
    for (; t.end - q > 16; q += 32) {
        const uint16_t *x = t.x + q * t.pixel, *w = t.weight;
        JSC_TILE_LOAD(0, t.bias, 0);
        JSC_TILE_LOAD(1, t.bias + 16, 0);
        JSC_TILE_LOAD(2, t.bias, 0);
        JSC_TILE_LOAD(3, t.bias + 16, 0);
        for (ptrdiff_t s = 0; s < t.steps; s++, w += step)
            amx_step<Pieces>(x + t.offset[s], t.piece, half, stride, w);
        if (plain && t.pitch == t.Ow && t.end - q >= 32 &&
            t.filters == 32) {  // pixels follow each other in the output too
            float *to = (float *)t.out + q * t.out_pitch;
            JSC_TILE_STORE(0, to, t.out_pitch * 4);
            JSC_TILE_STORE(1, to + 16, t.out_pitch * 4);
            JSC_TILE_STORE(2, to + 16 * t.out_pitch, t.out_pitch * 4);
            JSC_TILE_STORE(3, to + 16 * t.out_pitch + 16, t.out_pitch * 4);
        } else {
            amx_store_sums(t.sums);
            amx_store(t, q, q + 32, 2);
        }
    }
    if (q < t.end) {
        const uint16_t *x = t.x + q * t.pixel, *w = t.weight;
        JSC_TILE_LOAD(0, t.bias, 0);
        JSC_TILE_LOAD(1, t.bias + 16, 0);
        for (ptrdiff_t s = 0; s < t.steps; s++, w += step)
            amx_half_step<Pieces>(x + t.offset[s], t.piece, stride, w);
        JSC_TILE_STORE(0, t.sums, 64);
        JSC_TILE_STORE(1, t.sums + 256, 64);
        amx_store(t, q, q + 16, 2);
    }
}
inline void amx_task(const AmxTask *task) {
    if (task->pieces == 1) amx_task_of<1>(task);
    else if (task->pieces == 2) amx_task_of<2>(task);
    else amx_task_of<3>(task);
}

}  // namespace jsc
