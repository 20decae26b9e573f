// A pack of blocks of the JPEG layer's plain setting, with all its channels: pixels -> colour transform
// -> 8x8 DCT -> coefficients, and back. Layout: dct.h; a colour transform is 12 numbers, a 3x3 matrix and
// three constants (one channel: m[0] and m[9]).
//
// Images are (N, channels, H, W) of any H and W; blocks are counted (n, row, column). Blocks that
// stick out replicate the edge, so that the gradient of an edge pixel is the sum over its copies.
// A pack with such a block, or with fewer blocks than lanes, goes through a staging buffer; so do 8-bit
// images whose strides bytes.h does not take.
#pragma once
#include "jpeg/bytes.h"

namespace jsc {

template <class I, class T, int C>
struct JpegPack {
    typedef Pack<I, T> P;
    typedef Vec<I, T> V;
    typedef BytePack<I, T, C> Bytes;
    static constexpr int L = lanes<I, T>;
    static constexpr int SIZE = C * 64 * L;  // of the coefficients of a pack: (C, 8, 8, L)

    // Where the blocks of a pack are: corner l of lane l, and the strides they share.
    struct Blocks {
        T *corner[L];
        ptrdiff_t row, plane;
    };
    struct Place {
        ptrdiff_t image, top, left;
    };
    struct Image {
        ptrdiff_t height, width, rows, columns;  // rows and columns of blocks

        inline __attribute__((always_inline)) Place place(ptrdiff_t block) const {
            return {block / (rows * columns), block / columns % rows, block % columns};
        }
        inline __attribute__((always_inline)) void advance(Place &p) const {
            if (++p.left == columns) {
                p.left = 0;
                if (++p.top == rows) p.top = 0, p.image++;
            }
        }
        inline __attribute__((always_inline)) bool whole(const Place &p) const {
            return 8 * p.top + 8 <= height && 8 * p.left + 8 <= width;
        }
        inline __attribute__((always_inline)) ptrdiff_t offset(const Place &p) const {
            return (p.image * C * height + 8 * p.top) * width + 8 * p.left;
        }
        inline __attribute__((always_inline)) int valid_rows(const Place &p) const {
            return height - 8 * p.top < 8 ? (int)(height - 8 * p.top) : 8;
        }
        inline __attribute__((always_inline)) int valid_columns(const Place &p) const {
            return width - 8 * p.left < 8 ? (int)(width - 8 * p.left) : 8;
        }
    };

    JSC_INLINE Blocks direct(const T *x, const Image &im, const Place place[L]) {
        Blocks b;
        for (int l = 0; l < L; l++) b.corner[l] = (T *)x + im.offset(place[l]);
        b.row = im.width, b.plane = im.height * im.width;
        return b;
    }
    JSC_INLINE Blocks staged(T *stage) {
        Blocks b;
        for (int l = 0; l < L; l++) b.corner[l] = stage + l * C * 64;
        b.row = 8, b.plane = 64;
        return b;
    }
    // Line `line` of a row of a pack's blocks, as it lies in most: side by side.
    static constexpr int LINES = L * (int)sizeof(T) / 8;
    template <int Write>
    JSC_INLINE void fetch(const Blocks &b, int c, int row, int line) {
        __builtin_prefetch(b.corner[line % LINES * (8 / (int)sizeof(T))] + c * b.plane + row * b.row, Write,
                           2);
    }

    // Copy `count` blocks to the stage; outside the image the edge is repeated, or there are zeros.
    JSC_INLINE void copy_in(T *stage, const T *x, const Image &im, const Place place[L], int count,
                            bool replicate) {
        for (int l = 0; l < L; l++) {
            T *to = stage + l * C * 64;
            if (l >= count) {
                for (int i = 0; i < C * 64; i++) to[i] = 0;
                continue;
            }
            const int rows = im.valid_rows(place[l]), columns = im.valid_columns(place[l]);
            const T *from = x + im.offset(place[l]);
            for (int c = 0; c < C; c++, from += im.height * im.width)
                for (int i = 0; i < 8; i++)
                    for (int j = 0; j < 8; j++)
                        *to++ =
                            replicate || (i < rows && j < columns)
                                ? from[(i < rows ? i : rows - 1) * im.width + (j < columns ? j : columns - 1)]
                                : 0;
        }
    }
    // The same of 8-bit images.
    JSC_INLINE void convert_in(T *stage, const JpegBytes &x, const Image &im, const Place place[L],
                               int count) {
        for (int l = 0; l < L; l++) {
            T *to = stage + l * C * 64;
            if (l >= count) {
                for (int i = 0; i < C * 64; i++) to[i] = 0;
                continue;
            }
            const int rows = im.valid_rows(place[l]), columns = im.valid_columns(place[l]);
            const uint8_t *from = corner(x, place[l]);
            for (int c = 0; c < C; c++, from += x.channel_step)
                for (int i = 0; i < 8; i++)
                    for (int j = 0; j < 8; j++)
                        *to++ = (T)from[(i < rows ? i : rows - 1) * x.row_step +
                                        (j < columns ? j : columns - 1) * x.column_step];
        }
    }
    JSC_INLINE const uint8_t *corner(const JpegBytes &x, const Place &p) {
        return x.first + p.image * x.image_step + 8 * p.top * x.row_step + 8 * p.left * x.column_step;
    }
    // Copy what lies in the image back; with `fold`, what lies outside is first added to the edge.
    JSC_INLINE void copy_out(T *stage, T *y, const Image &im, const Place place[L], int count, bool fold) {
        for (int l = 0; l < count; l++) {
            T *from = stage + l * C * 64, *to = y + im.offset(place[l]);
            const int rows = im.valid_rows(place[l]), columns = im.valid_columns(place[l]);
            for (int c = 0; c < C; c++, from += 64, to += im.height * im.width) {
                if (fold) {
                    for (int i = 0; i < 8; i++)
                        for (int j = columns; j < 8; j++) from[8 * i + columns - 1] += from[8 * i + j];
                    for (int i = rows; i < 8; i++)
                        for (int j = 0; j < 8; j++) from[8 * (rows - 1) + j] += from[8 * i + j];
                }
                for (int i = 0; i < rows; i++)
                    for (int j = 0; j < columns; j++) to[i * im.width + j] = from[8 * i + j];
            }
        }
    }

    JSC_INLINE void recolour(V v[3][8], const T *m) {
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++) {
            if constexpr (C == 1) {
                v[0][k] = v[0][k] * m[0] + m[9];
            } else {
                V a = v[0][k], b = v[1][k], c = v[2][k];
                v[0][k] = m[9] + a * m[0] + b * m[1] + c * m[2];
                v[1][k] = m[10] + a * m[3] + b * m[4] + c * m[5];
                v[2][k] = m[11] + a * m[6] + b * m[7] + c * m[8];
            }
        }
    }

    // Pixels -> coefficients; `read` gets the number of a row, and fills in its vectors. Meanwhile the blocks
    // `next` are fetched, which are read or written soon.
    template <int Write, class Read>
    JSC_INLINE void analyse_rows(Read read, const Blocks &next, const T *matrix, T *coefficients) {
        for (int i = 0; i < 8; i++) {
            V v[3][8];
            read(i, v);
#pragma GCC unroll 3
            for (int c = 0; c < C; c++)
                for (int line = 0; line < LINES; line++) fetch<Write>(next, c, i, line);
            recolour(v, matrix);
#pragma GCC unroll 3
            for (int c = 0; c < C; c++) {
                dct8(v[c]);
#pragma GCC unroll 8
                for (int k = 0; k < 8; k++) store(coefficients + (c * 64 + 8 * i + k) * L, v[c][k]);
            }
        }
        for (int c = 0; c < C; c++) transform_columns<false, V>(coefficients + c * 64 * L);
    }
    template <int Write>
    JSC_INLINE void analyse(const Blocks &b, const Blocks &next, const T *matrix, T *coefficients) {
        const auto read = [&](int i, V v[3][8]) __attribute__((always_inline)) {
#pragma GCC unroll 3
            for (int c = 0; c < C; c++) P::load_row(b.corner, c * b.plane + i * b.row, v[c]);
        };
        analyse_rows<Write>(read, next, matrix, coefficients);
    }
    // The images' own: `bytes`, or x where that is null.
    template <int Write>
    JSC_INLINE void analyse_images(const T *x, const JpegBytes *bytes, const Image &im, const Place place[L],
                                   int count, bool stages, T *stage, const Blocks &next, const T *matrix,
                                   T *coefficients) {
        if (bytes && !stages && Bytes::loads(*bytes)) {
            if constexpr (Bytes::vectors) {
                const uint8_t *at[L];
                for (int l = 0; l < L; l++) at[l] = corner(*bytes, place[l]);
                const auto read = [&](int i, V v[3][8])
                                      __attribute__((always_inline)) { Bytes::load_rows(at, *bytes, i, v); };
                analyse_rows<Write>(read, next, matrix, coefficients);
            }
            return;
        }
        if (bytes) convert_in(stage, *bytes, im, place, count);
        else if (stages) copy_in(stage, x, im, place, count, true);
        analyse<Write>(bytes || stages ? staged(stage) : direct(x, im, place), next, matrix, coefficients);
    }

    // Coefficients -> pixels; destroys the coefficients.
    JSC_INLINE void synthesise(const Blocks &b, const T *matrix, T *coefficients) {
        for (int c = 0; c < C; c++) transform_columns<true, V>(coefficients + c * 64 * L);
        for (int i = 0; i < 8; i++) {
            V v[3][8];
#pragma GCC unroll 3
            for (int c = 0; c < C; c++) {
#pragma GCC unroll 8
                for (int k = 0; k < 8; k++) v[c][k] = load<V>(coefficients + (c * 64 + 8 * i + k) * L);
                idct8(v[c]);
            }
            recolour(v, matrix);
#pragma GCC unroll 3
            for (int c = 0; c < C; c++) P::store_row((T *const *)b.corner, c * b.plane + i * b.row, v[c]);
        }
    }
};

}  // namespace jsc
