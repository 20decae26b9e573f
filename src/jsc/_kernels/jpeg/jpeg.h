// The JPEG layer at its plain setting in one pass over memory, a pack of blocks at a time (layout: dct.h);
// bands.h has the others. Plain is 4:4:4 with edges repeated, in any number of rounds, no levels drawn.
//   pixels -> colour transform (normalisation and level shift inside its matrix) -> 8x8 DCT
//          -> quantiser (softquant.h), in rounds -> inverse DCT -> inverse colour transform -> pixels.
// Nothing but the input is kept for the backward pass, which computes the coefficients again:
//   the gradient of the output goes through the transposed colour matrix and the DCT (the inverse
//   DCT's transpose), meets the quantiser's derivatives at the coefficients of x, and returns.
//
// Ladder (ms per 224x224 RGB image, one thread, AVX-512, forward / backward):
//   torch operators, one step each, as the authors have it                      26 / 18
//   one pass, lanes across blocks, Jacobi's series for soft entries            .151 / .260
//   soft entries (kappa < 4) as a polynomial made for the entry                .127 / .255
//   sharp entries (kappa > 40): exponential only where a lane is near an edge  .180 -> .143 / .282 -> .211
//   all entries the identity: what transforms and memory take                  .097 / .165
//   8 images, which leave the cache; kappa = 2                                 .147 / .410
//   the same, the next pack fetched while the quantiser runs                   .130 / .300
// On an AMD EPYC, in the cache, kappa = 2, 20 and 500; the identity takes .085 / .155 there:
//   as above                                                      .134, .184, .138 / .267, .296, .211
//   the quantiser of softquant.h's ladder                         .110, .153, .104 / .227, .244, .180
// Tried and dropped: colour transform on the coefficients instead of the pixels (8 to 25 % slower),
// fetching the next pack all at once (12 % slower), reciprocal estimates instead of divisions (no
// difference), levels drawn here too (their registers make the rest 5 % slower; bands.h has them).
#pragma once
#include "jpeg/blocks.h"
#include "jpeg/pack.h"

namespace jsc {

template <class I, class T, int C>
struct PlainCoder : JpegPack<I, T, C> {
    typedef JpegPack<I, T, C> J;
    typedef BlockCoder<I, T> Coder;
    typedef typename Coder::Q Q;
    typedef Vec<I, T> V;
    typedef QuantEntry<T> Entry;
    typedef typename J::Image Image;
    static constexpr int L = J::L;

    JSC_INLINE Image image(const JpegCall &c) { return {c.height, c.width, c.luma_rows(), c.luma_columns()}; }
    JSC_INLINE JpegBytes bytes(const JpegCall &c, const void *x) {
        return {(const uint8_t *)x, c.image_step, c.channel_step, c.row_step, c.column_step};
    }
    // One round of one channel's quantiser; `fetch` gets the number of a step.
    template <class Fetch>
    JSC_INLINE void quantise(const JpegCall &c, int channel, int round, const T *z, T *to, Fetch fetch) {
        Q::template each<false>((const Entry *)c.tables + c.table(round, channel > 0), 64,
                                [=](int i, auto quantize) __attribute__((always_inline)) {
                                    fetch(i);
                                    store(to + i * L, quantize(load<V>(z + i * L)).value);
                                });
    }
};

// Blocks first .. first + count of a batch. The quantiser touches no memory but the coefficients, so that its
// steps fetch the next pack.
template <class T, int C>
struct JpegForward {
    template <class I>
    JSC_INLINE void run(const JpegCall *call, const void *x, T *y, ptrdiff_t first, ptrdiff_t count) {
        typedef PlainCoder<I, T, C> J;
        constexpr int L = J::L;
        const JpegCall &c = *call;
        const T *colours = (const T *)c.colours;
        const JpegBytes bytes = J::bytes(c, x);
        const typename J::Image im = J::image(c);
        typename J::Place next = im.place(first);
        alignas(64) T z[J::SIZE];
        alignas(64) T stage[J::SIZE];
        for (ptrdiff_t b = 0; b < count; b += L) {
            typename J::Place place[L];
            const int here = count - b < L ? (int)(count - b) : L;
            bool stages = here < L;
            for (int l = 0; l < here; l++, im.advance(next)) place[l] = next, stages |= !im.whole(next);
            J::analyse_images((const T *)x, c.bytes ? &bytes : nullptr, im, place, here, stages, stage,
                              colours, z);
            for (int channel = 0; channel < C; channel++) {
                // Of 8-bit images, which are small, only the place of the result.
                const auto to = J::ahead(y, im, next, channel);
                const auto from = c.bytes ? to : J::ahead((const T *)x, im, next, channel);
                const auto fetch = [=](int i) __attribute__((always_inline)) {
                    from.template fetch<0>(i);
                    to.template fetch<1>(i);
                };
                T *at = z + channel * 64 * L;
                for (int round = 0; round < c.rounds; round++) J::quantise(c, channel, round, at, at, fetch);
            }
            typename J::Blocks to;
            if (stages) J::staged(to, stage);
            else J::direct(to, y, im, place);
            J::synthesise(to, colours + 12, z);
            if (stages) J::copy_out(stage, y, im, place, here, false);
        }
    }
};

// partial: (rounds, 1 or 2, 64, 2) sums of the gradients of q (at constant kappa) and kappa over the chunk.
// memory: the coefficients before each round (rounds, SIZE), and sums (rounds, 1 or 2, 64, 2, SUMS).
template <class T, int C>
struct JpegBackward {
    template <class I>
    JSC_INLINE void run(const JpegCall *call, const T *g, const void *x, T *dx, ptrdiff_t first,
                        ptrdiff_t count, int wanted, T *memory, double *partial) {
        typedef PlainCoder<I, T, C> J;
        typedef typename J::V V;
        constexpr int L = J::L, S = SUMS<T>;
        const JpegCall &c = *call;
        const T *colours = (const T *)c.colours;
        const JpegBytes bytes = J::bytes(c, x);
        const typename J::Image im = J::image(c);
        typename J::Place next = im.place(first);
        T *const before = memory, *const sums = memory + C * c.pack_numbers(sizeof(T));
        for (ptrdiff_t i = 0; i < c.sum_numbers(sizeof(T)); i++) sums[i] = 0;
        alignas(64) T dz[J::SIZE];
        alignas(64) T stage[J::SIZE];
        for (ptrdiff_t b = 0; b < count; b += L) {
            typename J::Place place[L];
            const int here = count - b < L ? (int)(count - b) : L;
            bool stages = here < L;
            for (int l = 0; l < here; l++, im.advance(next)) place[l] = next, stages |= !im.whole(next);
            J::analyse_images((const T *)x, c.bytes ? &bytes : nullptr, im, place, here, stages, stage,
                              colours, before);
            typename J::Blocks blocks;
            if (stages) J::copy_in(stage, g, im, place, here, false), J::staged(blocks, stage);
            else J::direct(blocks, (T *)g, im, place);
            J::analyse(blocks, colours + 24, dz);
            for (int channel = 0; channel < C; channel++) {
                const auto up = J::ahead(g, im, next, channel);
                const auto from = c.bytes ? up : J::ahead((const T *)x, im, next, channel);
                const auto to = wanted & GRADIENT_X ? J::ahead(dx, im, next, channel) : up;
                T *const first_z = before + channel * 64 * L;
                for (int round = 0; round < c.rounds - 1; round++)
                    J::quantise(c, channel, round, first_z + round * J::SIZE, first_z + (round + 1) * J::SIZE,
                                [](int) {});
                T *at = dz + channel * 64 * L;
                for (int round = c.rounds - 1; round >= 0; round--) {
                    const ptrdiff_t table = c.table(round, channel > 0);
                    T *const sum = sums + table * 2 * S + b % S, *const z = first_z + round * J::SIZE;
                    J::Q::template each<true>((const typename J::Entry *)c.tables + table, 64,
                                              [=](int i, auto quantize) __attribute__((always_inline)) {
                                                  from.template fetch<0>(i);
                                                  up.template fetch<0>(i);
                                                  to.template fetch<1>(i);
                                                  const V given = load<V>(at + i * L);
                                                  const auto answer = quantize(load<V>(z + i * L));
                                                  store(at + i * L, given * answer.slope);
                                                  T *total = sum + 2 * S * i;
                                                  store(total, load<V>(total) + given * answer.dq);
                                                  store(total + S,
                                                        load<V>(total + S) + given * answer.dkappa);
                                              });
                }
            }
            if (!(wanted & GRADIENT_X)) continue;
            if (!stages) J::direct(blocks, dx, im, place);
            J::synthesise(blocks, colours + 36, dz);
            if (stages) J::copy_out(stage, dx, im, place, here, true);
        }
        if (!(wanted & GRADIENT_TABLES)) return;
        for (ptrdiff_t i = 0; i < c.all_tables() * 128; i++) {
            double total = 0;
            for (int l = 0; l < S; l++) total += sums[i * S + l];
            partial[i] = total;
        }
    }
};

template <class T>
inline void jpeg_chunk(int isa, const JpegCall *call, const void *x, T *y, ptrdiff_t first, ptrdiff_t count) {
    if (call->channels == 1) dispatch<JpegForward<T, 1>>(isa, call, x, y, first, count);
    else dispatch<JpegForward<T, 3>>(isa, call, x, y, first, count);
}
template <class T>
inline void jpeg_chunk_backward(int isa, const JpegCall *call, const T *g, const void *x, T *dx,
                                ptrdiff_t first, ptrdiff_t count, int wanted, T *memory, double *partial) {
    if (call->channels == 1)
        dispatch<JpegBackward<T, 1>>(isa, call, g, x, dx, first, count, wanted, memory, partial);
    else dispatch<JpegBackward<T, 3>>(isa, call, g, x, dx, first, count, wanted, memory, partial);
}

}  // namespace jsc
