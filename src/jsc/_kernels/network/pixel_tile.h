// What a direct convolution (convolution.h) is told, and its tile: P output pixels, any consecutive ones of a
// band of rows.
#pragma once
#include "network/activation.h"

namespace jsc::network {

struct ConvolutionFields {
    Map x, out;
    int64_t Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw, groups;
    int64_t vectors;  // V
    int64_t chunk;  // channels, at most `zero_line`
    int64_t band_rows;  // output rows of a task
    int64_t task_blocks;  // filter blocks of a task
    int64_t tiles_first;  // 1: chunks are an inner loop of tiles, 2 (groups = 1): blocks too
    uint64_t weight;
    Epilogue epilogue;
};

constexpr int zero_line = 256;
alignas(64) static const float zeros[zero_line] = {};

template <class I>
constexpr int tile_pixels(int V) {
    if (I::bytes == 64) return V == 1 ? 12 : V == 2 ? 12 : V == 3 ? 8 : 6;
    return V == 1 ? 12 : V == 2 ? 6 : 4;
}

// Where the pixels of a tile are read and written; those beyond its end repeat the last one.
template <int P>
struct Tile {
    int64_t count, iy[P], ix[P], out[P], residual[P], x[P];
    bool inside;  // no tap hangs over

    JSC_INLINE Tile place(const ConvolutionFields &f, int64_t y0, int64_t first, int64_t pixels) {
        Tile t;
        t.count = std::min<int64_t>(P, pixels - first);
        t.inside = true;
        int64_t y = y0 + first / f.out.W, x = first % f.out.W;
        if (t.count == P && x + P <= f.out.W) {  // of one row: a few vectors of steps
            const int64_t iy = y * f.Sh - f.Ph, ix = x * f.Sw - f.Pw, more = f.epilogue.residual.pixel;
            const int64_t from = iy * f.x.row + ix * f.x.pixel, out = y * f.out.row + x * f.out.pixel;
            const int64_t residual = y * f.epilogue.residual.row + x * more, step = f.Sw * f.x.pixel;
            for (int p = 0; p < P; p++) {
                t.iy[p] = iy;
                t.ix[p] = ix + p * f.Sw;
                t.x[p] = from + p * step;
                t.out[p] = out + p * f.out.pixel;
                t.residual[p] = residual + p * more;
            }
            t.inside = iy >= 0 && iy + (f.Kh - 1) * f.Dh < f.x.H && ix >= 0 &&
                       ix + (P - 1) * f.Sw + (f.Kw - 1) * f.Dw < f.x.W;
            return t;
        }
        for (int p = 0; p < P; p++) {
            const int64_t iy = y * f.Sh - f.Ph, ix = x * f.Sw - f.Pw;
            t.iy[p] = iy;
            t.ix[p] = ix;
            t.x[p] = iy * f.x.row + ix * f.x.pixel;
            t.out[p] = y * f.out.row + x * f.out.pixel;
            t.residual[p] = y * f.epilogue.residual.row + x * f.epilogue.residual.pixel;
            t.inside &=
                iy >= 0 && iy + (f.Kh - 1) * f.Dh < f.x.H && ix >= 0 && ix + (f.Kw - 1) * f.Dw < f.x.W;
            if (p + 1 >= t.count) continue;
            const bool next_row = x + 1 == f.out.W;
            x = next_row ? 0 : x + 1;
            y += next_row;
        }
        return t;
    }
};

}  // namespace jsc::network
