// The direct convolution (convolution.h) at the precision "bf16": operands are rounded to bfloat16, which
// AVX-512's extension BF16 multiplies and adds to float32 in pairs, twice as many as multiply-adds.
//
//   out[n, y, x, k] = act(sum(u, v, c) r(w[k, c, u, v]) r(in[n, Sh y + Dh u - Ph, Sw x + Dw v - Pw, c])
//                         + shift[k] + residual[n, y, x, k])          r: the nearest bfloat16
//
// It is convolution.h's kernel, whose "channels" are pairs of 32 bits: blocking, epilogue and order of
// weights are the same. A map of bfloat16 with an even number of channels is read where it lies.
//
// Of other maps a task converts the input of its band of rows first, borders of zeros included: rows of
// columns of pairs of channels (an odd last one with a zero), in the thread's scratch. That takes little
// beside the products, 32 a cycle, of which there are Kh Kw K / (Sh Sw) for each number. A kernel of one
// column (row) at a stride converts the columns (rows) that it reads alone.
//
// On one thread of an AMD EPYC (Zen 4; 32 products a cycle, 115 G multiply-adds a second), direct float32 and
// this one, us: 1x1 64 -> 256 at 56 909, 486; 3x3 of 64 at 56 2332, 1079; 3x3 of 128 at 28 2096, 1188; 3x3 of
// 512 at 7 2028, 1250; 1x1 2048 -> 512 at 7 1059, 571; 7x1 of 21 at 112 (the first layer of ResNet) 2697,
// 1571. Winograd's F(4x4) in float32 takes 679, 630 and 1240 us for the three 3x3: it stays the faster one on
// large maps.
//
// Maps of bfloat16 in place of float32 ones, the same thread, us: 1x1 96 -> 24 at 56 110, 88; 1x1 128 -> 16
// at 56 86, 61; 1x1 768 -> 768 at 6 206, 188; 1x1 24 -> 144 at 56, which is nearly all writing, 127, 120.
// Whole networks and their memory: benchmarks/results/precision.md.
//
// Not tried: Winograd with products of bfloat16, whose error would be some nine times that of rounded
// operands with F(4x4).
//
// Weights: those of convolution.h, with two bfloat16 for each number: of channels 2 c and 2 c + 1.
//
// Numerics: products are exact, sums float32, in the order of convolution.h with the odd channel of a pair
// first. Denormals count as zero, numbers that round to inf as inf.
#pragma once
#include "network/convolution.h"

namespace jsc::network {

struct DirectBf16Fields {
    ConvolutionFields direct;  // of the maps as they are; `chunk` counts pairs of channels; groups is 1
};

// The band of a task as the kernel reads it.
struct PairsBand {
    bool in_place;  // the map itself
    int64_t row_step, column_step;  // of the input, from one row and column of the band to the next
    int64_t rows, columns, pairs;
    ConvolutionFields inner;  // the convolution of the band

    explicit PairsBand(const ConvolutionFields &f) : inner(f) {
        in_place = f.x.bf16 && f.x.C % 2 == 0 && f.x.pixel % 2 == 0 && f.x.row % 2 == 0;
        if (in_place) {
            inner.x.C = f.x.C / 2, inner.x.pixel = f.x.pixel / 2, inner.x.row = f.x.row / 2;
            row_step = column_step = rows = columns = pairs = 0;
            return;
        }
        row_step = f.Kh == 1 ? f.Sh : 1;
        column_step = f.Kw == 1 ? f.Sw : 1;
        inner.Sh = f.Sh / row_step, inner.Sw = f.Sw / column_step;
        inner.Ph = inner.Pw = 0;
        rows = (f.band_rows - 1) * inner.Sh + (f.Kh - 1) * f.Dh + 1;
        columns = (f.out.W - 1) * inner.Sw + (f.Kw - 1) * f.Dw + 1;
        pairs = ceil_div(f.x.C, 2);
        inner.x.C = inner.x.pixel = pairs;
        inner.x.row = columns * pairs;
        inner.x.W = columns;
        inner.x.H = (f.out.H - 1) * inner.Sh + (f.Kh - 1) * f.Dh + 1;
    }
    // The last store may reach beyond.
    int64_t numbers() const { return in_place ? 0 : rows * columns * pairs + 16; }
};

// T: the numbers of the output and of the residual.
template <class T>
struct DirectBf16Kernel {
    // C channels of a pixel, or of several ones that follow each other. Up to 15 numbers more are written.
    JSC_INLINE void convert(const float *x, int64_t C, uint16_t *to) {
        int64_t c = 0;
        for (; c + 32 <= C; c += 32)
            *(Bfloat32 *)(to + c) = to_bfloat16(load<Floats16>(x + c), load<Floats16>(x + c + 16));
        for (; c < C; c += 16) {
            const int rest = (int)(C - c);
            const Floats16 v = rest < 16 ? load_partial<Floats16>(x + c, rest) : load<Floats16>(x + c);
            *(Bfloat16 *)(to + c) = to_bfloat16(v);
        }
    }
    JSC_INLINE void convert(const uint16_t *x, int64_t C, uint16_t *to) {
        memcpy(to, x, 2 * C);
        if (C % 2) to[C] = 0;
    }
    // The band of the output rows from y0 on, in order, so that what is written too far is written again.
    template <class X>
    JSC_INLINE void convert_band(const ConvolutionFields &f, const PairsBand &band, const X *x, int64_t y0,
                                 int64_t rows, float *to) {
        // Pixels that follow each other in both. An odd channel beside which another map's number lies is not
        // among them: NaN times the weight of zero would be NaN.
        const bool dense = band.column_step == 1 && f.x.pixel == f.x.C && f.x.C % 2 == 0;
        for (int64_t r = 0; r < rows; r++, to += band.columns * band.pairs) {
            const int64_t y = y0 * f.Sh - f.Ph + r * band.row_step, step = band.column_step;
            // Columns q with 0 <= q step - Pw < W lie in the input.
            int64_t first = std::min(ceil_div(f.Pw, step), band.columns);
            int64_t end = std::max(first, std::min(ceil_div(f.Pw + f.x.W, step), band.columns));
            if (y < 0 || y >= f.x.H) first = end = band.columns;
            memset((void *)to, 0, 4 * first * band.pairs);
            const X *from = x + y * f.x.row + (first * step - f.Pw) * f.x.pixel;
            if (dense) {
                convert(from, (end - first) * f.x.C, (uint16_t *)(to + first * band.pairs));
            } else {
                for (int64_t q = first; q < end; q++, from += step * f.x.pixel)
                    convert(from, f.x.C, (uint16_t *)(to + q * band.pairs));
            }
            memset((void *)(to + end * band.pairs), 0, 4 * (band.columns - end) * band.pairs);
        }
    }

    template <class I>
    JSC_INLINE void run(const ConvolutionFields *fields, const PairsBand *the_band, int64_t sums,
                        int64_t task, const Call *call) {
        const ConvolutionFields &f = *fields;
        const PairsBand &band = *the_band;
        const Share part(band.inner, task, lanes<I, float>);
        using Kernel = ConvolutionKernel<Numbers::pairs, T>;
        float *own = (float *)call->scratch, *pairs = own + sums;
        if (band.in_place) {
            const float *x = (const float *)at<uint16_t>(f.x, *call, part.n);
            return Kernel::template filter_blocks<I>(band.inner, *call, part, x, own);
        }
        const int64_t rows = (part.pixels / f.out.W - 1) * band.inner.Sh + (f.Kh - 1) * f.Dh + 1;
        if (f.x.bf16) convert_band(f, band, at<uint16_t>(f.x, *call, part.n), part.y0, rows, pairs);
        else convert_band(f, band, at(f.x, *call, part.n), part.y0, rows, pairs);
        // The kernel counts the rows of the whole image.
        const float *x = pairs - part.y0 * band.inner.Sh * band.inner.x.row;
        Kernel::template filter_blocks<I>(band.inner, *call, part, x, own);
    }
};

class DirectBf16 final : public Instruction {
  public:
    DirectBf16(const DirectBf16Fields &fields, int64_t lanes)
        : f(fields.direct), band(f), kernel(band.inner, lanes) {}
    int64_t tasks(int64_t round) const override { return kernel.tasks(round); }
    int64_t scratch_bytes() const override { return kernel.scratch_bytes() + 4 * band.numbers(); }
    void run(int, int64_t, int64_t task, const Call &call) const override {
#if defined(__x86_64__)
        const int64_t sums = kernel.scratch_bytes() / 4;
        if (f.out.bf16) run_avx512<DirectBf16Kernel<uint16_t>>(&f, &band, sums, task, &call);
        else run_avx512<DirectBf16Kernel<float>>(&f, &band, sums, task, &call);
#endif
    }

  private:
    ConvolutionFields f;
    PairsBand band;
    Convolution kernel;  // whose tasks and scratch are those of the band's convolution
};

}  // namespace jsc::network
