// What a call of the JPEG layer computes (jpeg.h, bands.h), how its images divide into bands, and how much
// scratch memory that takes.
#pragma once
#include <cstddef>
#include <cstdint>

namespace jsc {

// What a call computes. Colour transforms are 12 numbers: a 3x3 matrix and three constants (one channel:
// m[0] and m[9]); in this order: x -> planes, planes -> y, and the transposes of both matrices.
struct JpegCall {
    ptrdiff_t height, width;
    int channels;        // 3, or 1
    int v, u;            // pixels to a sample of chroma, downwards and across: 1 1, 1 2 or 2 2
    ptrdiff_t depth;     // of a band: choose_depth()
    int rounds, zero;    // of the quantiser; whether padding is mid-grey
    int bytes;           // whether x holds 8-bit numbers, with any strides:
    ptrdiff_t image_step, channel_step, row_step, column_step;
    const void *colours, *tables;  // (4, 12); (rounds, 1 or 2, 64) entries
    int draws;                     // whether levels are drawn, with entries and a seed of their own
    const void *drawn;
    uint32_t seed[2];

    // Whether jpeg.h has it, which is faster.
    bool plain() const {
        return v == 1 && u == 1 && !draws && (!zero || (height % 8 == 0 && width % 8 == 0));
    }
    ptrdiff_t blocks() const { return luma_rows() * luma_columns(); }  // of a plain image's plane
    ptrdiff_t tables_a_round() const { return channels == 3 ? 2 : 1; }
    // Where the entries of Y, or of Cb and Cr, begin.
    ptrdiff_t table(int round, int chroma) const { return (round * tables_a_round() + chroma) * 64; }

    ptrdiff_t unit_rows() const { return (height + 8 * v - 1) / (8 * v); }
    // Rows of units of a band: more than one where that leaves clearly fewer lanes of packs of 16 blocks
    // empty, and the band is still small. The same for every instruction set, so that sums are.
    void choose_depth() {
        depth = 1;
        for (ptrdiff_t rows = 2; rows <= 16 && rows <= unit_rows() && rows * luma_columns() <= 128; rows++)
            if (32 * packs(rows) * depth < 31 * packs(depth) * rows) depth = rows;
    }
    ptrdiff_t deep() const { return depth; }
    ptrdiff_t packs(ptrdiff_t rows) const {  // of Y, and of Cb and Cr
        return (rows * v * luma_columns() + 15) / 16 + (2 * rows * units() + 15) / 16;
    }
    ptrdiff_t bands() const { return (unit_rows() + deep() - 1) / deep(); }
    ptrdiff_t deep(ptrdiff_t band) const {  // of this one
        const ptrdiff_t left = unit_rows() - band * deep();
        return left < deep() ? left : deep();
    }
    ptrdiff_t luma_rows() const { return (height + 7) / 8; }
    ptrdiff_t luma_columns() const { return (width + 7) / 8; }
    ptrdiff_t units() const { return (width + 8 * u - 1) / (8 * u); }  // of a band
    ptrdiff_t samples_down() const { return (height + v - 1) / v; }    // of chroma
    ptrdiff_t samples_across() const { return (width + u - 1) / u; }
    // Numbers of a row of scratch: whole blocks, an empty one that lanes without a block take, and room for
    // a vector, or for the number before the first, on each side; all rows begin with a cache line.
    static constexpr ptrdiff_t MARGIN = 16;
    static constexpr ptrdiff_t pitch(ptrdiff_t numbers) { return (numbers + 8 + 2 * MARGIN + 15) / 16 * 16; }
    ptrdiff_t luma_pitch() const { return pitch(8 * u * units()); }
    ptrdiff_t chroma_pitch() const { return pitch(8 * units()); }
    // Of the scratch of one thread: planes of Y for two bands, and of Cb and Cr for three (backward: for x
    // and for its gradient); rows for what is on its way.
    ptrdiff_t plane_numbers() const { return deep() * (2 * 8 * v * luma_pitch() + 3 * 16 * chroma_pitch()); }
    static constexpr int SPARE_ROWS = 16, SPARE_CHROMA = 4;
    ptrdiff_t halo_rows() const { return 8 * v * deep() + 2; }  // of a plane
    ptrdiff_t all_tables() const { return rounds * tables_a_round(); }
    // Numbers of `size` bytes. Backward: sums over the lanes of a cache line, and a pack's coefficients
    // before each round.
    ptrdiff_t sum_numbers(int size) const { return all_tables() * 128 * (64 / size); }
    ptrdiff_t pack_numbers(int size) const { return (ptrdiff_t)rounds * 64 * (64 / size); }
    ptrdiff_t scratch_numbers(bool backward, int size) const {
        if (plain()) return backward ? channels * pack_numbers(size) + sum_numbers(size) : 0;
        const ptrdiff_t forward =
            2 * MARGIN + plane_numbers() + SPARE_ROWS * luma_pitch() + SPARE_CHROMA * chroma_pitch();
        if (!backward) return forward;
        return forward + plane_numbers() + 2 * halo_rows() * luma_pitch() + sum_numbers(size) +
               pack_numbers(size);
    }
};

}  // namespace jsc
