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
//   colours with averages, interpolation with colours, in registers: splitting an image takes 10 us in
//   place of 13.5, joining it 18.5 in place of 22.5 (DCT and its inverse 28, the rest is the quantiser)
//   in the cache / 30 images that are not, kappa = 2: as above    104, 173 / 160, 256 forward, backward
//   the quantiser of softquant.h's ladder                          82, 151 / 138, 240
//   the rows that a band will write fetched meanwhile              84, 155 / 132, 230
// (8 images, in L3: 95, 228 -> 89, 180)
// Tried and dropped: all rounds of an entry before the next entry (rounds wait for each other: 20 % slower
// with three); fetching the rows that are read next, too (10 % slower in the cache, at most 5 % faster out of
// it). At the plain setting bands take 1.1 times as long as jpeg.h.
#pragma once
#include "jpeg/blocks.h"
#include "jpeg/planes.h"

namespace jsc {

template <class I, class T>
struct Bands : Planes<I, T> {
    typedef BlockCoder<I, T> Coder;
    typedef typename Planes<I, T>::Scratch Scratch;

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
    // Of a whole band.
    JSC_INLINE ptrdiff_t packs(const JpegCall &c) {
        constexpr int L = Coder::L;
        const ptrdiff_t luma = c.deep() * c.v * c.luma_columns(), chroma = 2 * c.deep() * c.units();
        return (luma + L - 1) / L + (c.channels == 3 ? (chroma + L - 1) / L : 0);
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
            Ahead<T> soon(c, B::packs(c) * 2 * B::Coder::STEPS);
            if (b - ahead >= first) soon.band(c, y, image, b - ahead);
            for (int plane = 1; plane >= 0; plane--) {  // Cb and Cr of band b, then Y of band b - ahead
                const ptrdiff_t band = plane ? b : b - ahead;
                if (plane ? c.channels == 1 || b >= c.bands() : band < first) continue;
                B::Coder::forward(c, B::part(c, s, image, band, plane),
                                  plane ? chroma(c, s, band) : luma(c, s, band), soon);
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
            Ahead<T> soon(c, B::packs(c) * 3 * B::Coder::STEPS);
            if (wanted & GRADIENT_X) soon.band(c, dx, image, band);
            for (int chroma = 0; chroma < (c.channels == 3 ? 2 : 1); chroma++)
                B::Coder::backward(c, B::part(c, s, image, band, chroma), chroma ? s.chroma : s.luma,
                                   chroma ? s.chroma_up : s.luma_up, s.pack, s.sums, wanted & GRADIENT_X,
                                   soon);
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
