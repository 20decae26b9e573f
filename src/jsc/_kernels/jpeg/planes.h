// Pixels and the planes of a band (bands.h): colours, chroma averaged and interpolated, and the adjoints.
// All of it lies in scratch memory, row by row (rows.h).
#pragma once
#include "jpeg/call.h"
#include "jpeg/rows.h"

namespace jsc {

template <class I, class T>
struct Planes {
    typedef Rows<I, T> R;

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

    // Rows of x as numbers: themselves, or 8-bit ones converted into spare rows from `spare` on.
    JSC_INLINE void source(const JpegCall &c, const Scratch &s, const void *x, ptrdiff_t image, ptrdiff_t y,
                           const T *rows[3], int spare = 0) {
        for (int k = 0; k < c.channels; k++) {
            if (!c.bytes) {
                rows[k] = (const T *)x + ((image * c.channels + k) * c.height + y) * c.width;
                continue;
            }
            const uint8_t *from =
                (const uint8_t *)x + image * c.image_step + k * c.channel_step + y * c.row_step;
            T *to = s.spare_row(spare + k);
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
            // Rows below an image that is padded with grey are none of its pixels, and are done one by one.
            if (small && c.channels == 3 && (!c.zero || y + c.v <= c.height)) {
                T *to[2] = {chroma + i / c.v * s.chroma_pitch};
                to[1] = to[0] + 8 * deep * s.chroma_pitch;
                split_averaged(c, s, x, image, y, luma + i * s.pitch, to);
                i += c.v - 1;
                continue;
            }
            T *out[3] = {luma + i * s.pitch};
            for (int k = 0; k < 2; k++)
                out[1 + k] =
                    small ? s.spare_row(3 + 2 * k + i % c.v) : chroma + (8 * deep * k + i) * s.chroma_pitch;
            if (y < c.height || !c.zero) {
                const T *in[3] = {};
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

    // Rows y .. y + v - 1 of an image, of which those below it repeat the last: Y, and a row of each chroma.
    JSC_INLINE void split_averaged(const JpegCall &c, const Scratch &s, const void *x, ptrdiff_t image,
                                   ptrdiff_t y, T *luma, T *const chroma[2]) {
        const T *m = (const T *)c.colours, *in[2][3] = {}, weight = (T)1 / (c.u * c.v);
        const ptrdiff_t wide = 8 * c.u * c.units();
        for (int r = 0; r < c.v; r++)
            source(c, s, x, image, y + r < c.height ? y + r : c.height - 1, in[r], 7 + 3 * r);
        T *rows[2] = {luma, luma + s.pitch};
        // The last pixel is among the rest where it is to be repeated.
        const ptrdiff_t n = c.width == wide ? c.width : c.width - 1;
        const ptrdiff_t done =
            R::recolour_averaged(in[0], c.v == 2 ? in[1] : nullptr, rows, chroma, n, m, weight);
        if (done == wide) return;
        for (int r = 0; r < c.v; r++) {
            T *out[3] = {rows[r] + done, s.spare_row(3 + r), s.spare_row(5 + r)};
            const T *from[3] = {in[r][0] + done, in[r][1] + done, in[r][2] + done};
            R::recolour(3, from, out, c.width - done, m);
            for (int k = 0; k < 3; k++)
                R::fill(out[k], c.width - done, wide - done, c.zero ? 0 : out[k][c.width - done - 1]);
        }
        for (int k = 0; k < 2; k++)
            R::average(s.spare_row(3 + 2 * k), c.v == 2 ? s.spare_row(4 + 2 * k) : nullptr,
                       chroma[k] + done / 2, 8 * c.units() - done / 2, weight);
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
        const ptrdiff_t top = band * c.deep() * 8 * c.v;
        for (int i = 0; i < 8 * c.v * c.deep(); i++) {
            const ptrdiff_t row = top + i;
            if (row >= c.height) return;
            const T *in[3] = {luma + i * s.pitch};
            T *out[3];
            for (int k = 0; k < c.channels; k++)
                out[k] = y + ((image * c.channels + k) * c.height + row) * c.width;
            if (c.channels == 3 && c.u == 2) {
                join_interpolated(c, s, in[0], out, row);
                continue;
            }
            for (int k = 0; k < 2 && c.channels == 3; k++) in[1 + k] = sample_row(c, s, k, row);
            R::recolour(c.channels, in, out, c.width, m);
        }
    }
    // A row of pixels from its Y and the nearest rows of chroma.
    JSC_INLINE void join_interpolated(const JpegCall &c, const Scratch &s, const T *luma, T *const out[3],
                                      ptrdiff_t row) {
        const T *m = (const T *)c.colours + 12;
        const ptrdiff_t last = c.samples_down() - 1, across = c.samples_across(), near = row / c.v;
        ptrdiff_t far = near + (row % 2 ? 1 : -1);
        far = far < 0 ? 0 : far > last ? last : far;
        const T *chroma[2];
        for (int k = 0; k < 2; k++) {
            T *to = s.spare_chroma + k * s.chroma_pitch;
            R::blend(sample_row(c, s, k, near), c.v == 2 ? sample_row(c, s, k, far) : nullptr, to, across);
            R::repeat_ends(to, across);
            chroma[k] = to;
        }
        const ptrdiff_t done = R::recolour_interpolated(luma, chroma, out, c.width, m);
        if (done == c.width) return;
        for (int k = 0; k < 2; k++) R::interpolate(chroma[k] + done / 2, s.spare_row(k), across - done / 2);
        const T *from[3] = {luma + done, s.spare_row(0), s.spare_row(1)};
        T *to[3] = {out[0] + done, out[1] + done, out[2] + done};
        R::recolour(3, from, to, c.width - done, m);
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
                const T *in[3] = {};
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
            for (int k = 0; k < c.channels; k++)
                out[k] = dx + ((image * c.channels + k) * c.height + y) * c.width;
            const bool repeated = y == c.height - 1 && !c.zero;  // by the rows below
            ptrdiff_t done = 0;
            if (c.channels == 3 && c.u == 2 && !(repeated && i + 1 < 8 * c.v * deep)) {
                const T *luma = s.luma_up + i * s.pitch,
                        *chroma[2] = {chroma_up(c, s, deep, i, 0), chroma_up(c, s, deep, i, 1)};
                // The last pixel is among the rest where it is repeated.
                const ptrdiff_t n = c.width == wide[1] ? c.width : c.width - 1;
                done = R::recolour_repeated(luma, chroma, out, n, m, (T)1 / (c.u * c.v));
                if (done == c.width) continue;
            }
            plane_rows(c, s, deep, i, rows, 0);
            for (int k = 0; k < c.channels; k++) {
                if (repeated)
                    for (int j = i + 1; j < 8 * c.v * deep; j++) {
                        T *below[3];
                        if (k == 0 && top / 8 + j / 8 >= c.luma_rows()) break;
                        plane_rows(c, s, deep, j, below, 3);
                        R::add(below[k], rows[k], wide[k > 0]);
                    }
                for (ptrdiff_t j = c.width; j < wide[k > 0] && !c.zero; j++)
                    rows[k][c.width - 1] += rows[k][j];
                rows[k] += done, out[k] += done;
            }
            R::recolour(c.channels, rows, out, c.width - done, m);
        }
    }
    // The samples of row i of the pixels, plane k.
    JSC_INLINE T *chroma_up(const JpegCall &c, const Scratch &s, ptrdiff_t deep, int i, int k) {
        return s.chroma_up + (8 * deep * k + i / c.v) * s.chroma_pitch;
    }
    // Row i of the planes' gradients at full width, chroma in the spare rows from `spare` on.
    JSC_INLINE void plane_rows(const JpegCall &c, const Scratch &s, ptrdiff_t deep, int i, T *rows[3],
                               int spare) {
        rows[0] = s.luma_up + i * s.pitch;
        for (int k = 0; k < 2 && c.channels == 3; k++) {
            T *samples = chroma_up(c, s, deep, i, k);
            rows[1 + k] = c.u == 1 ? samples : s.spare_row(spare + k);
            if (c.u > 1) R::repeat(samples, rows[1 + k], 8 * c.units(), (T)1 / (c.u * c.v));
        }
    }
};

}  // namespace jsc
