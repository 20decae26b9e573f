// Lowering for the dense baselines: copies of the map in the order in which a matrix product reads it.
//
//   im2col, rows     L[(n, y, x), (i, q, c)] = X[n, y Sh + i Dh - Ph, x Sw + q Dw - Pw, c]   channels-last X
//   im2col, planes   L[(i, q, c), (y, x)]    = the same, of one image                        NCHW X
//   MEC              L[(n, x), (i, q, c)]    = X[n, i - Ph, x Sw + q Dw - Pw, c]             channels-last X
//
// MEC (Cho & Brand, ICML 2017) lowers horizontally only, i runs over all padded rows; each output row
// is then a matrix product on an overlapping view of L. Positions in the padding are zero.
#pragma once
#include <cstddef>
#include <cstring>

namespace jsc {

struct LowerShape {
    ptrdiff_t C, H, W, Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw, Oh, Ow;
};

// Kw pixels of C channels from input row `row` (null: padding), starting at column j0, step Dw.
template <class T>
inline void lower_taps(const LowerShape *s, const T *row, ptrdiff_t j0, T *to) {
    const size_t pixel = sizeof(T) * s->C;
    if (!row) {
        memset(to, 0, pixel * s->Kw);
    } else if (s->Dw == 1 && j0 >= 0 && j0 + s->Kw <= s->W) {
        memcpy(to, row + j0 * s->C, pixel * s->Kw);
    } else {
        for (ptrdiff_t q = 0; q < s->Kw; q++, to += s->C) {
            ptrdiff_t j = j0 + q * s->Dw;
            if (j >= 0 && j < s->W) memcpy(to, row + j * s->C, pixel);
            else memset(to, 0, pixel);
        }
    }
}

// Output row y of a channels-last image: Ow rows of the matrix.
template <class T>
inline void lower_row(const LowerShape *s, const T *image, ptrdiff_t y, T *to) {
    for (ptrdiff_t x = 0; x < s->Ow; x++)
        for (ptrdiff_t l = 0; l < s->Kh; l++, to += s->Kw * s->C) {
            ptrdiff_t i = y * s->Sh + l * s->Dh - s->Ph;
            lower_taps(s, i >= 0 && i < s->H ? image + i * s->W * s->C : nullptr, x * s->Sw - s->Pw, to);
        }
}

// MEC's row of window x: all padded rows of one channels-last image.
template <class T>
inline void lower_window(const LowerShape *s, const T *image, ptrdiff_t x, T *to) {
    for (ptrdiff_t i = -s->Ph; i < s->H + s->Ph; i++, to += s->Kw * s->C)
        lower_taps(s, i >= 0 && i < s->H ? image + i * s->W * s->C : nullptr, x * s->Sw - s->Pw, to);
}

// Rows (l, q, c = all channels) of the matrix of one NCHW image, Oh * Ow long each.
template <class T>
inline void lower_plane(const LowerShape *s, const T *plane, ptrdiff_t l, ptrdiff_t q, T *to) {
    // Output columns x0 .. x1 read inside the map.
    const ptrdiff_t shift = q * s->Dw - s->Pw;
    ptrdiff_t x0 = shift < 0 ? (-shift + s->Sw - 1) / s->Sw : 0;
    ptrdiff_t x1 = shift < s->W ? (s->W - 1 - shift) / s->Sw + 1 : 0;
    if (x0 > s->Ow) x0 = s->Ow;
    if (x1 > s->Ow) x1 = s->Ow;
    if (x1 < x0) x1 = x0;
    for (ptrdiff_t y = 0; y < s->Oh; y++, to += s->Ow) {
        ptrdiff_t i = y * s->Sh + l * s->Dh - s->Ph;
        if (i < 0 || i >= s->H) {
            memset(to, 0, sizeof(T) * s->Ow);
            continue;
        }
        const T *row = plane + i * s->W;
        for (ptrdiff_t x = 0; x < x0; x++) to[x] = 0;
        if (s->Sw == 1 && x0 < x1) memcpy(to + x0, row + x0 + shift, sizeof(T) * (x1 - x0));
        else
            for (ptrdiff_t x = x0; x < x1; x++) to[x] = row[x * s->Sw + shift];
        for (ptrdiff_t x = x1; x < s->Ow; x++) to[x] = 0;
    }
}

}  // namespace jsc
