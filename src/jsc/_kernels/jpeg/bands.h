// The JPEG layer in one pass over memory at every setting, a band of blocks at a time: chroma subsampled or
// not, any number of rounds of the quantiser, levels drawn or not, float or 8-bit images.
//   pixels -> colour transform (normalisation and level shift inside its matrix), chroma averaged -> 8x8 DCT
//          -> quantiser (softquant.h) -> inverse DCT -> chroma interpolated, inverse colours -> pixels.
// Nothing but the input is kept for the backward pass, which computes the coefficients again.
//
// A unit is 8v x 8u pixels: v x u blocks of Y and one of Cb and of Cr. A band is a row of an image's units,
// or several where so few columns would not fill a vector's lanes with blocks.
//   forward   pixels -> planes (rows.h) -> DCT, quantiser, inverse DCT in place (blocks.h) -> pixels
//   backward  the planes of x, and those of the gradient by the adjoint of the last step, meet in the
//             quantiser; the adjoint of the first step brings the gradient back to the pixels.
// Interpolated chroma needs a row of samples from the bands above and below. Forward, the chroma of three
// bands is held; where a task begins in the midst of an image it computes that of the band before again.
// Backward needs rows of the gradient from there, and nothing else: a band's coefficients are its own.
//
// Blocks that stick out of the image repeat its edge, or are mid-grey (zero). The edge's adjoint is the sum
// over its copies. All of it lies in scratch memory that fits into L2 for images of some thousand columns.
//
// Ladder (us per 224x224 RGB image at 4:2:0, one thread, AVX-512, forward / with backward):
//   the steps one after the other, torch and jpeg.h on each plane (Intel Xeon)  756 / 2414
//   the same on an AMD EPYC, forward only                                       576
//   bands                                                                       221 / 665
//   as many rows to a band as fill packs of blocks best (results/jpeg.md)       137 / 411
// Tried and dropped: all rounds of an entry before the next entry (rounds wait for each other: 20 % slower
// with three); fetching the next band's rows meanwhile (nothing: the processor sees rows coming). At the
// plain setting bands take some 1.3 times as long as jpeg.h forward, 1.1 times backward.
#pragma once
#include "jpeg/blocks.h"
#include "jpeg/rows.h"

namespace jsc {

template <class I, class T>
struct Bands {
    typedef Rows<I, T> R;
    typedef BlockCoder<I, T> Coder;

    struct Scratch {
        T *luma, *chroma;           // of x; backward: coefficients are read from there
        T *luma_up, *chroma_up;     // of the gradient
        T *spare, *spare_chroma, *halo;
        T *sums, *pack;
        ptrdiff_t pitch, chroma_pitch;
        JSC_INLINE Scratch carve(const JpegCall &c, T *memory, bool backward) {
            Scratch s = {};
            s.pitch = c.luma_pitch(), s.chroma_pitch = c.chroma_pitch();
            if (backward) s.sums = memory, memory += c.sum_numbers(sizeof(T));
            if (backward) s.pack = memory, memory += c.pack_numbers(sizeof(T));
            memory += JpegCall::MARGIN;
            s.luma = memory, s.chroma = s.luma + 2 * c.deep() * 8 * c.v * s.pitch;
            memory += c.plane_numbers();
            s.luma_up = memory, s.chroma_up = s.luma_up + 2 * c.deep() * 8 * c.v * s.pitch;
            if (backward) memory += c.plane_numbers();
            s.spare = memory, memory += JpegCall::SPARE_ROWS * s.pitch;
            s.spare_chroma = memory, memory += JpegCall::SPARE_CHROMA * s.chroma_pitch;
            s.halo = memory;
            return s;
        }
        inline __attribute__((always_inline)) T *spare_row(int i) const { return spare + i * pitch; }
    };

    // Rows of x as numbers: themselves, or 8-bit ones converted into spare rows.
    JSC_INLINE void source(const JpegCall &c, const Scratch &s, const void *x, ptrdiff_t image, ptrdiff_t y,
                           const T *rows[3]) {
        for (int k = 0; k < c.channels; k++) {
            if (!c.bytes) {
                rows[k] = (const T *)x + ((image * c.channels + k) * c.height + y) * c.width;
                continue;
            }
            const uint8_t *from =
                (const uint8_t *)x + image * c.image_step + k * c.channel_step + y * c.row_step;
            T *to = s.spare_row(k);
            if (c.column_step == 1)
                for (ptrdiff_t i = 0; i < c.width; i++) to[i] = (T)from[i];
            else
                for (ptrdiff_t i = 0; i < c.width; i++) to[i] = (T)from[i * c.column_step];
            rows[k] = to;
        }
    }

    // The planes of a band of x, whole blocks, chroma averaged.
    JSC_INLINE void split(const JpegCall &c, const Scratch &s, const void *x, ptrdiff_t image, ptrdiff_t band,
                          T *luma, T *chroma) {
        const T *m = (const T *)c.colours;
        const bool small = c.u > 1;
        const ptrdiff_t wide = 8 * c.u * c.units(), deep = c.deep(band), top = band * c.deep() * 8 * c.v;
        for (int i = 0; i < 8 * c.v * deep; i++) {
            const ptrdiff_t y = top + i;
            T *out[3] = {luma + i * s.pitch};
            for (int k = 0; k < 2; k++)
                out[1 + k] =
                    small ? s.spare_row(3 + 2 * k + i % c.v) : chroma + (8 * deep * k + i) * s.chroma_pitch;
            if (y < c.height || !c.zero) {
                const T *in[3];
                source(c, s, x, image, y < c.height ? y : c.height - 1, in);
                R::recolour(c.channels, in, out, c.width, m);
            }
            for (int k = 0; k < c.channels; k++) {
                const bool outside = c.zero && y >= c.height;
                R::fill(out[k], outside ? 0 : c.width, wide, c.zero ? 0 : out[k][c.width - 1]);
            }
            if (c.channels == 1 || !small || i % c.v < c.v - 1) continue;
            for (int k = 0; k < 2; k++)
                R::average(s.spare_row(3 + 2 * k), c.v == 2 ? s.spare_row(4 + 2 * k) : nullptr,
                           chroma + (8 * deep * k + i / c.v) * s.chroma_pitch, 8 * c.units(),
                           (T)1 / (c.u * c.v));
        }
    }

    // Chroma row `row` of the image, plane k, from the planes of three bands.
    JSC_INLINE T *sample_row(const JpegCall &c, const Scratch &s, int k, ptrdiff_t row) {
        const ptrdiff_t rows = 8 * c.deep(), band = row / rows;
        return s.chroma + (band % 3 * 2 * rows + 8 * c.deep(band) * k + row % rows) * s.chroma_pitch;
    }

    // The pixels of a band.
    JSC_INLINE void join(const JpegCall &c, const Scratch &s, const T *luma, T *y, ptrdiff_t image,
                         ptrdiff_t band) {
        const T *m = (const T *)c.colours + 12;
        const ptrdiff_t last = c.samples_down() - 1, top = band * c.deep() * 8 * c.v;
        for (int i = 0; i < 8 * c.v * c.deep(); i++) {
            const ptrdiff_t row = top + i;
            if (row >= c.height) return;
            const T *in[3] = {luma + i * s.pitch};
            T *out[3];
            for (int k = 0; k < c.channels; k++)
                out[k] = y + ((image * c.channels + k) * c.height + row) * c.width;
            for (int k = 0; k < 2 && c.channels == 3; k++) {
                if (c.u == 1) {
                    in[1 + k] = sample_row(c, s, k, row);
                    continue;
                }
                const ptrdiff_t near = row / c.v;
                ptrdiff_t far = near + (row % 2 ? 1 : -1);
                far = far < 0 ? 0 : far > last ? last : far;
                R::blend(sample_row(c, s, k, near), c.v == 2 ? sample_row(c, s, k, far) : nullptr,
                         s.spare_chroma + k * s.chroma_pitch, c.samples_across());
                R::interpolate(s.spare_chroma + k * s.chroma_pitch, s.spare_row(k), c.samples_across());
                in[1 + k] = s.spare_row(k);
            }
            R::recolour(c.channels, in, out, c.width, m);
        }
    }

    // The adjoint of `join`: the gradient of a band's planes.
    JSC_INLINE void split_gradient(const JpegCall &c, const Scratch &s, const T *g, ptrdiff_t image,
                                   ptrdiff_t band) {
        const T *m = (const T *)c.colours + 24;
        const ptrdiff_t wide = 8 * c.u * c.units(), across = c.samples_across(), deep = c.deep(band);
        const ptrdiff_t top = band * c.deep() * 8 * c.v, halo = c.v == 2, rows = 8 * c.v * deep;
        // At full width, from the row above the band on.
        T *chroma[2] = {s.halo + s.pitch, s.halo + (c.halo_rows() + 1) * s.pitch};
        for (ptrdiff_t i = -halo; i < rows + halo; i++) {
            const ptrdiff_t y = top + i;
            T *out[3] = {i >= 0 && i < rows ? s.luma_up + i * s.pitch : s.spare_row(0)};
            for (int k = 0; k < 2; k++)
                out[1 + k] =
                    c.u == 1 ? s.chroma_up + (8 * deep * k + i) * s.chroma_pitch : chroma[k] + i * s.pitch;
            const bool outside = y < 0 || y >= c.height;
            if (!outside) {
                const T *in[3];
                for (int k = 0; k < c.channels; k++)
                    in[k] = g + ((image * c.channels + k) * c.height + y) * c.width;
                R::recolour(c.channels, in, out, c.width, m);
            }
            for (int k = 0; k < c.channels; k++) R::fill(out[k], outside ? 0 : c.width, wide, 0);
        }
        if (c.channels == 1 || c.u == 1) return;
        for (int k = 0; k < 2; k++)
            for (int i = 0; i < 8 * deep; i++) {
                T *to = s.chroma_up + (8 * deep * k + i) * s.chroma_pitch;
                const T *first = chroma[k] + i * c.v * s.pitch;
                const ptrdiff_t sample = band * c.deep() * 8 + i;
                if (sample >= c.samples_down()) {
                    R::fill(to, 0, 8 * c.units(), 0);
                    continue;
                }
                if (c.v == 2) {
                    const T *above = sample ? first - s.pitch : first, *second = first + s.pitch;
                    const T *under = sample < c.samples_down() - 1 ? second + s.pitch : second;
                    R::unblend(above, first, second, under, s.spare_row(1), 2 * across);
                } else {
                    R::scale(first, s.spare_row(1), 2 * across, 1);
                }
                R::gather(s.spare_row(1), to, across);
                R::fill(to, across, 8 * c.units(), 0);
            }
    }

    // The adjoint of `split`: from the gradient of a band's planes to that of its pixels.
    JSC_INLINE void join_gradient(const JpegCall &c, const Scratch &s, T *dx, ptrdiff_t image,
                                  ptrdiff_t band) {
        const T *m = (const T *)c.colours + 36;
        const ptrdiff_t wide[2] = {8 * c.luma_columns(), 8 * c.u * c.units()}, deep = c.deep(band);
        const ptrdiff_t top = band * c.deep() * 8 * c.v;
        for (int i = 0; i < 8 * c.v * deep; i++) {
            const ptrdiff_t y = top + i;
            if (y >= c.height) return;
            T *rows[3], *out[3];
            plane_rows(c, s, deep, i, rows, 0);
            for (int k = 0; k < c.channels; k++) {
                if (y == c.height - 1 && !c.zero)  // the rows below repeat it
                    for (int j = i + 1; j < 8 * c.v * deep; j++) {
                        T *below[3];
                        if (k == 0 && top / 8 + j / 8 >= c.luma_rows()) break;
                        plane_rows(c, s, deep, j, below, 3);
                        R::add(below[k], rows[k], wide[k > 0]);
                    }
                for (ptrdiff_t j = c.width; j < wide[k > 0] && !c.zero; j++)
                    rows[k][c.width - 1] += rows[k][j];
                out[k] = dx + ((image * c.channels + k) * c.height + y) * c.width;
            }
            R::recolour(c.channels, rows, out, c.width, m);
        }
    }
    // Row i of the planes' gradients at full width, chroma in the spare rows from `spare` on.
    JSC_INLINE void plane_rows(const JpegCall &c, const Scratch &s, ptrdiff_t deep, int i, T *rows[3],
                               int spare) {
        rows[0] = s.luma_up + i * s.pitch;
        for (int k = 0; k < 2 && c.channels == 3; k++) {
            T *samples = s.chroma_up + (8 * deep * k + i / c.v) * s.chroma_pitch;
            rows[1 + k] = c.u == 1 ? samples : s.spare_row(spare + k);
            if (c.u > 1) R::repeat(samples, rows[1 + k], 8 * c.units(), (T)1 / (c.u * c.v));
        }
    }

    // Blocks of Y, and of Cb and Cr one above the other, of a band.
    JSC_INLINE typename Coder::Part part(const JpegCall &c, const Scratch &s, ptrdiff_t image, ptrdiff_t band,
                                         bool chroma) {
        typename Coder::Part p;
        const ptrdiff_t deep = c.deep(band), top = band * c.deep(), left = c.luma_rows() - top * c.v;
        p.columns = chroma ? c.units() : c.luma_columns();
        p.count = p.columns * (chroma ? 2 * deep : left < deep * c.v ? left : deep * c.v);
        p.pitch = chroma ? s.chroma_pitch : s.pitch;
        p.empty = 8 * (chroma ? c.units() : c.u * c.units());
        p.table = chroma;
        // Numbers the blocks of the batch, plane after plane of an image: what is drawn follows from it.
        const ptrdiff_t luma = c.luma_rows() * c.luma_columns(), plane = c.unit_rows() * c.units();
        p.number =
            (uint64_t)image * (luma + 2 * plane) + (chroma ? luma + top * c.units() : top * c.v * p.columns);
        p.first_plane = deep * c.units(), p.between = plane - p.first_plane;
        return p;
    }
};

// Bands first .. end of one image.
template <class T>
struct BandsForward {
    template <class I>
    JSC_INLINE void run(const JpegCall *call, const void *x, T *y, ptrdiff_t image, ptrdiff_t first,
                        ptrdiff_t end, T *memory) {
        typedef Bands<I, T> B;
        const JpegCall &c = *call;
        const typename B::Scratch s = B::Scratch::carve(c, memory, false);
        // Where chroma is interpolated between rows it is a band ahead of Y.
        const ptrdiff_t ahead = c.v == 2 && c.channels == 3;
        for (ptrdiff_t b = first < ahead ? first : first - ahead; b < end + ahead; b++) {
            if (b < c.bands()) B::split(c, s, x, image, b, luma(c, s, b), chroma(c, s, b));
            for (int plane = 1; plane >= 0; plane--) {  // Cb and Cr of band b, then Y of band b - ahead
                const ptrdiff_t band = plane ? b : b - ahead;
                if (plane ? c.channels == 1 || b >= c.bands() : band < first) continue;
                B::Coder::forward(c, B::part(c, s, image, band, plane),
                                  plane ? chroma(c, s, band) : luma(c, s, band));
                if (!plane) B::join(c, s, luma(c, s, band), y, image, band);
            }
        }
    }
    template <class Scratch>
    JSC_INLINE T *luma(const JpegCall &c, const Scratch &s, ptrdiff_t band) {
        return s.luma + band % 2 * c.deep() * 8 * c.v * s.pitch;
    }
    template <class Scratch>
    JSC_INLINE T *chroma(const JpegCall &c, const Scratch &s, ptrdiff_t band) {
        return s.chroma + band % 3 * c.deep() * 16 * s.chroma_pitch;
    }
};

// partial: (rounds, 1 or 2, 64, 2) sums over the bands of the gradients of q (at constant kappa) and kappa.
template <class T>
struct BandsBackward {
    template <class I>
    JSC_INLINE void run(const JpegCall *call, const T *g, const void *x, T *dx, ptrdiff_t image,
                        ptrdiff_t first, ptrdiff_t end, int wanted, T *memory, double *partial) {
        typedef Bands<I, T> B;
        const JpegCall &c = *call;
        const typename B::Scratch s = B::Scratch::carve(c, memory, true);
        for (ptrdiff_t i = 0; i < c.sum_numbers(sizeof(T)); i++) s.sums[i] = 0;
        for (ptrdiff_t band = first; band < end; band++) {
            B::split(c, s, x, image, band, s.luma, s.chroma);
            B::split_gradient(c, s, g, image, band);
            for (int chroma = 0; chroma < (c.channels == 3 ? 2 : 1); chroma++)
                B::Coder::backward(c, B::part(c, s, image, band, chroma), chroma ? s.chroma : s.luma,
                                   chroma ? s.chroma_up : s.luma_up, s.pack, s.sums, wanted & GRADIENT_X);
            if (wanted & GRADIENT_X) B::join_gradient(c, s, dx, image, band);
        }
        if (!(wanted & GRADIENT_TABLES)) return;
        for (ptrdiff_t i = 0; i < c.all_tables() * 128; i++) {
            double total = 0;
            for (int l = 0; l < SUMS<T>; l++) total += s.sums[i * SUMS<T> + l];
            partial[i] = total;
        }
    }
};

template <class T>
inline void jpeg_bands(int isa, const JpegCall *call, const void *x, T *y, ptrdiff_t image, ptrdiff_t first,
                       ptrdiff_t end, T *memory) {
    dispatch<BandsForward<T>>(isa, call, x, y, image, first, end, memory);
}
template <class T>
inline void jpeg_bands_backward(int isa, const JpegCall *call, const T *g, const void *x, T *dx,
                                ptrdiff_t image, ptrdiff_t first, ptrdiff_t end, int wanted, T *memory,
                                double *partial) {
    dispatch<BandsBackward<T>>(isa, call, g, x, dx, image, first, end, wanted, memory, partial);
}

}  // namespace jsc
