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
// The same of 100 images, which are in no cache; the identity takes .166 / .285, in the end .100 / .200:
//   the quantiser of softquant.h's ladder                         .170, -, .185 / .325, -, .288
//   fetched by the blocks' own corners (half of all packs go on in the next row of blocks), what is read
//   while the pack before is quantised, what is written while this one is read
//                                                                 .125, -, .140 / .265, -, .240
// Tried and dropped: colour transform on the coefficients instead of the pixels (8 to 25 % slower), fetching
// the next pack all at once (12 % slower), into L1 or past L2 (15 to 40 % slower), reciprocal estimates
// instead of divisions (no difference), levels drawn here too (their registers make the rest 5 % slower;
// bands.h has them).
#pragma once
#include "jpeg/blocks.h"
#include "jpeg/pack.h"

namespace jsc {

// What forward and backward share.
template <class I, class T, int C>
struct PlainCoder : JpegPack<I, T, C> {
    typedef JpegPack<I, T, C> J;
    typedef BlockCoder<I, T> Coder;
    typedef typename Coder::Q Q;
    typedef Vec<I, T> V;
    typedef QuantEntry<T> Entry;
    typedef typename J::Image Image;
    static constexpr int L = J::L;

    JSC_INLINE JpegBytes bytes(const JpegCall &c, const void *x) {
        return {(const uint8_t *)x, c.image_step, c.channel_step, c.row_step, c.column_step};
    }
    // One round of one channel's quantiser, which fetches `next`: it touches no memory but the coefficients.
    JSC_INLINE void quantise(const JpegCall &c, int channel, int round, const T *z, T *to,
                             const typename J::Blocks &next) {
        const auto *const ahead = &next;
        Q::template each<false>((const Entry *)c.tables + c.table(round, channel > 0), 64,
                                [=](int i, auto quantize) __attribute__((always_inline)) {
                                    J::template fetch<0>(*ahead, channel, i / 8, i % 8);
                                    store(to + i * L, quantize(load<V>(z + i * L)).value);
                                });
    }

    // The packs of blocks first .. first + count, one after the other, and the one that follows.
    struct Walk {
        Image im;
        typename J::Place place[L], following[L], next;
        int here;  // blocks of this pack
        bool stages;  // whether it takes the staging buffer

        inline __attribute__((always_inline)) Walk(const JpegCall &c, ptrdiff_t first)
            : im{c.height, c.width, c.luma_rows(), c.luma_columns()}, next(im.place(first)) {
            see();
        }
        inline __attribute__((always_inline)) void see() {
            for (int l = 0; l < L; l++, im.advance(next)) following[l] = next;
        }
        inline __attribute__((always_inline)) void step(ptrdiff_t left) {
            here = left < L ? (int)left : L, stages = here < L;
            for (int l = 0; l < L; l++) place[l] = following[l];
            for (int l = 0; l < here; l++) stages |= !im.whole(place[l]);
            see();
        }
    };
};

// Blocks first .. first + count of a batch. What a pack will write is fetched while it is read, and what the
// next one will read while this one is quantised.
template <class T, int C>
struct JpegForward {
    template <class I>
    JSC_INLINE void run(const JpegCall *call, const void *x, T *y, ptrdiff_t first, ptrdiff_t count) {
        typedef PlainCoder<I, T, C> J;
        constexpr int L = J::L;
        const JpegCall &c = *call;
        const T *colours = (const T *)c.colours;
        const JpegBytes bytes = J::bytes(c, x);
        typename J::Walk at(c, first);
        alignas(64) T z[J::SIZE];
        alignas(64) T stage[J::SIZE];
        for (ptrdiff_t b = 0; b < count; b += L) {
            at.step(count - b);
            const auto to = J::direct(y, at.im, at.place);
            J::template analyse_images<1>((const T *)x, c.bytes ? &bytes : nullptr, at.im, at.place, at.here,
                                          at.stages, stage, to, colours, z);
            const auto next = c.bytes ? to : J::direct((const T *)x, at.im, at.following);
            for (int channel = 0; channel < C; channel++) {
                T *plane = z + channel * 64 * L;
                for (int round = 0; round < c.rounds; round++)
                    J::quantise(c, channel, round, plane, plane, next);
            }
            J::synthesise(at.stages ? J::staged(stage) : to, colours + 12, z);
            if (at.stages) J::copy_out(stage, y, at.im, at.place, at.here, false);
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
        typename J::Walk at(c, first);
        T *const before = memory, *const sums = memory + C * c.pack_numbers(sizeof(T));
        for (ptrdiff_t i = 0; i < c.sum_numbers(sizeof(T)); i++) sums[i] = 0;
        alignas(64) T dz[J::SIZE];
        alignas(64) T stage[J::SIZE];
        for (ptrdiff_t b = 0; b < count; b += L) {
            at.step(count - b);
            const auto given = J::direct(g, at.im, at.place);
            const auto to = wanted & GRADIENT_X ? J::direct(dx, at.im, at.place) : given;
            J::template analyse_images<0>((const T *)x, c.bytes ? &bytes : nullptr, at.im, at.place, at.here,
                                          at.stages, stage, given, colours, before);
            if (at.stages) J::copy_in(stage, g, at.im, at.place, at.here, false);
            J::template analyse<1>(at.stages ? J::staged(stage) : given, to, colours + 24, dz);
            const auto next = c.bytes ? to : J::direct((const T *)x, at.im, at.following);
            const auto *const ahead = &next;  // captured by value, as all in the loop: no memory between
            for (int channel = 0; channel < C; channel++) {
                T *const plane = before + channel * 64 * L, *const up = dz + channel * 64 * L;
                for (int round = 0; round < c.rounds - 1; round++)
                    J::quantise(c, channel, round, plane + round * J::SIZE, plane + (round + 1) * J::SIZE,
                                next);
                for (int round = c.rounds - 1; round >= 0; round--) {
                    const ptrdiff_t table = c.table(round, channel > 0);
                    T *const sum = sums + table * 2 * S + b % S, *const z = plane + round * J::SIZE;
                    J::Q::template each<true>((const typename J::Entry *)c.tables + table, 64,
                                              [=](int i, auto quantize) __attribute__((always_inline)) {
                                                  J::template fetch<0>(*ahead, channel, i / 8, i % 8);
                                                  const V upstream = load<V>(up + i * L);
                                                  const auto answer = quantize(load<V>(z + i * L));
                                                  store(up + i * L, upstream * answer.slope);
                                                  T *total = sum + 2 * S * i;
                                                  store(total, load<V>(total) + upstream * answer.dq);
                                                  store(total + S,
                                                        load<V>(total + S) + upstream * answer.dkappa);
                                              });
                }
            }
            if (!(wanted & GRADIENT_X)) continue;
            J::synthesise(at.stages ? J::staged(stage) : to, colours + 36, dz);
            if (at.stages) J::copy_out(stage, dx, at.im, at.place, at.here, true);
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
