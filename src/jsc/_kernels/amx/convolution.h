// A whole amx convolution (product.h) as rounds of tasks, which any team of threads may share out.
//
// Where all weights fit L2 a task splits the input of a band of output rows, or of some pixels, and runs
// through all filters: one round. Where they do not, bands are worked on together: a round splits the input
// of `shared` bands, the next one shares out their filters and pixels, and so on, so that weights come from
// memory once for all of these bands.
//
// Memory that all threads share: whether anyone has met a number without three pieces, and planes of shared
// bands. Memory of each thread: sums, and planes where it works on its own.
// Behind planes is slack that the tiles of the last pixels reach into; it is zero, because what lies there
// may be NaN and is multiplied by zeros.
#pragma once
#include "amx/product.h"

namespace jsc {

constexpr ptrdiff_t AMX_BANDS = 8;  // at least, for each thread, where every thread works on its own
constexpr ptrdiff_t AMX_LINE = 64;  // bytes, to which memory is aligned

// What does not change from call to call. Sizes are numbers of elements, addresses are 0 where there is
// nothing.
struct AmxFields {
    ptrdiff_t N, C, H, W, K, Kh, Kw, Sh, Sw, Ph, Pw, Dh, Dw, Oh, Ow;
    // From a pixel to the next; rows and images follow each other.
    ptrdiff_t x_pitch, out_pitch, residual_pitch;
    // Of a number of the input, and of the output and the residual: 4, or 2 of bfloat16.
    ptrdiff_t x_bytes, out_bytes;
    ptrdiff_t chunk;  // channels to a chunk, 16 or 32
    ptrdiff_t window;  // numbers of a window, 0 where planes hold the map
    ptrdiff_t column_step;  // input columns to a column of the planes
    ptrdiff_t pixel_columns;  // columns of the planes to an output
    ptrdiff_t row_pixels;  // outputs to a row of the planes, those beyond its end included
    ptrdiff_t phases, halo;  // phases of rows; rows beside those of a band's outputs
    // Limits: weights that stay in L2; planes of a thread; planes of all threads.
    ptrdiff_t weight_bytes, band_bytes, shared_bytes;
    ptrdiff_t pieces;  // bfloat16 numbers to an operand: 3 ieee, 2 tf32, 1 bf16
    ptrdiff_t packed;  // that the weights have of each number: as many or more
    size_t weight, bias;  // (K blocks, steps, packed, 32 filters, 32) bfloat16; (32 K blocks)
    int relu;  // whether it follows
};

struct AmxCall {
    const char *x, *residual = nullptr;
    char *out;
    char *common, *own;  // memory of all threads, and of each, one after the other
};

struct AmxConvolution : AmxFields {
    ptrdiff_t threads = 1;
    const ptrdiff_t *offset = nullptr;  // (steps()): from the first number of an output to that of each step

    ptrdiff_t band_rows, rows;  // output rows of a band, rows of its planes
    ptrdiff_t columns;  // of the planes
    ptrdiff_t together;  // pixels that are split and used up together; 0: whole bands
    ptrdiff_t shared;  // bands that all threads work on together; 0: each thread on its own
    ptrdiff_t piece, slack;  // numbers from a piece to the next, and behind the planes
    ptrdiff_t task_pixels;  // of a task that does not run through a whole band

    AmxConvolution() : AmxFields{} {}
    explicit AmxConvolution(const AmxFields &fields) : AmxFields(fields) {
        const bool light = weight_size() <= weight_bytes;
        const bool alone = window || (Kh == 1 && Kw == 1 && Sh == 1 && Sw == 1 && Ph == 0 && Pw == 0);
        const bool half =
            K % AMX_BLOCK > 0 && K % AMX_BLOCK <= AMX_BLOCK / 2;  // a block has half its filters
        together = !(alone && light) ? 0 : half ? 2 * AMX_BLOCK : AMX_BLOCK;
        columns = row_pixels * pixel_columns;
        const ptrdiff_t room = light ? band_bytes : shared_bytes,
                        row_bytes = clamp(2 * pieces * column_numbers() * columns, 1);
        band_rows = clamp(clamp(room / row_bytes - halo, 1, Oh), 1);
        if (light) band_rows = clamp(band_rows, 0, clamp(ceil(N * Oh, AMX_BANDS), 4));
        rows = together ? 1 : band_rows + halo;
        if (together) columns = together;
        shared =
            light ? 0
                  : clamp(clamp(room / clamp(2 * pieces * column_numbers() * columns * rows, 1), 1, units()),
                          1);
        piece = rows * columns * (window ? window : phases * chunk);
        // Behind an output's first number: 64 outputs and one more, the farthest step of its chunk, a row
        // of a tile.
        slack = (2 * AMX_BLOCK + 1) * pixel() + last_step() + 32;
    }
    // Offsets of the steps, in the order of the weights.
    void place_steps(ptrdiff_t *to) const {
        if (window) {
            for (ptrdiff_t e = 0; e < window; e += 32) *to++ = e;
            return;
        }
        for (ptrdiff_t s = 0; s < chunks(); s++)
            for (ptrdiff_t i = 0; i < Kh; i++)
                for (ptrdiff_t j = 0; j < taps(); j++) *to++ = s * pieces * piece + step_offset(i, j);
    }
    ptrdiff_t steps() const { return window ? window / 32 : chunks() * Kh * taps(); }
    ptrdiff_t common_bytes() const { return lines(AMX_LINE + (shared ? 2 * plane_numbers() : 0)); }
    ptrdiff_t own_bytes() const { return lines(4 * SUMS + (shared ? 0 : 2 * plane_numbers())); }

    // Once before the rounds, by one thread.
    void begin(const AmxCall &call) const {
        const Places at = places(call);
        *at.bad = 0;
        if (shared) clear_slack(at);
    }
    // A call of this object, which has a copy of its own, by so many threads.
    void share_out(ptrdiff_t team) {
        threads = team;
        task_pixels = AMX_BLOCK;
        if (together) {
            task_pixels = ceil(Oh * Ow, AMX_BANDS * threads * together) * together;
        } else if (shared) {
            // Whole bands where there are tasks enough without: weights are then read once a band.
            const ptrdiff_t parts = threads == 1 ? 1 : ceil(4 * threads, shared * blocks());
            task_pixels = clamp(ceil(band_rows * row_pixels, parts * AMX_BLOCK) * AMX_BLOCK, AMX_BLOCK);
        }
    }
    ptrdiff_t rounds() const {
        return units() == 0 || Ow == 0 || K == 0 ? 0 : shared ? 2 * ceil(units(), shared) : 1;
    }
    ptrdiff_t tasks(ptrdiff_t round) const {
        if (together) return N * ceil(Oh * Ow, task_pixels);
        if (!shared) return units();
        return round % 2 == 0 ? shares(round) : bands_of(round) * parts() * blocks();
    }
    // The thread has tiles: it is between amx_begin and amx_end.
    void run(ptrdiff_t round, ptrdiff_t index, int thread, const AmxCall &call) const {
        Places at = places(call, thread);
        if (!shared) {
            clear_slack(at);
            if (together) pixels(at, call, index);
            else band(at, call, index);
        } else if (round % 2 == 0) {
            const ptrdiff_t all = rows_of(round), end = (index + 1) * all / shares(round);
            for (ptrdiff_t row = index * all / shares(round); row < end; row++) {
                Places own = at;
                const ptrdiff_t u = row / (rows * phases);
                own.planes += u * planes();
                split_row(own, call, first_band(round) + u, row - u * rows * phases);
            }
        } else {
            const ptrdiff_t u = index / (parts() * blocks());
            at.planes += u * planes();
            multiply(at, call, first_band(round) + u, index / parts() % blocks(),
                     index % parts() * task_pixels, task_pixels);
        }
    }
    // After the rounds: false where the input has a number that three bfloat16 cannot sum up to.
    bool end(const AmxCall &call) const { return !*places(call).bad; }

  private:
    static constexpr ptrdiff_t SUMS = 1024;  // numbers of four tiles
    struct Places {
        float *sums;
        uint16_t *planes;
        unsigned char *bad;
    };

    static ptrdiff_t ceil(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }
    // n, but at least `low` and at most `high`.
    static ptrdiff_t clamp(ptrdiff_t n, ptrdiff_t low, ptrdiff_t high = PTRDIFF_MAX) {
        return n > high ? high : n < low ? low : n;
    }

    static ptrdiff_t lines(ptrdiff_t bytes) { return ceil(bytes, AMX_LINE) * AMX_LINE; }

    ptrdiff_t blocks() const { return ceil(K, AMX_BLOCK); }
    ptrdiff_t chunks() const { return ceil(C, chunk); }
    ptrdiff_t taps() const { return ceil(Kw * chunk, 32); }  // steps to a kernel row
    ptrdiff_t units() const { return N * ceil(Oh, band_rows); }
    ptrdiff_t weight_size() const { return 2 * pieces * blocks() * steps() * 2 * AMX_TILE; }
    ptrdiff_t column_numbers() const { return window ? window : chunks() * chunk * phases; }  // of a piece
    ptrdiff_t pixel() const { return window ? window : pixel_columns * chunk; }  // from an output to the next
    ptrdiff_t planes() const { return pieces * column_numbers() * columns * rows; }
    ptrdiff_t plane_numbers() const { return (shared ? shared : 1) * planes() + slack; }
    ptrdiff_t step_offset(ptrdiff_t i, ptrdiff_t j) const {
        const ptrdiff_t row = i * Dh % Sh * rows + i * Dh / Sh;
        return (row * row_pixels * pixel_columns + j * (32 / chunk) * Dw) * chunk;
    }
    ptrdiff_t last_step() const {
        ptrdiff_t last = 0;
        for (ptrdiff_t i = 0; !window && C > 0 && i < Kh; i++) last = clamp(step_offset(i, taps() - 1), last);
        return last;
    }

    Places places(const AmxCall &call, int thread = 0) const {
        Places at;
        at.bad = (unsigned char *)call.common;
        at.sums = (float *)(call.own + thread * own_bytes());
        at.planes = shared ? (uint16_t *)(call.common + AMX_LINE) : (uint16_t *)(at.sums + SUMS);
        return at;
    }
    void clear_slack(const Places &at) const {
        uint16_t *behind = at.planes + plane_numbers() - slack;
        for (ptrdiff_t i = 0; i < slack; i++) behind[i] = 0;
    }

    // ---- rounds over shared bands
    ptrdiff_t parts() const { return ceil(band_rows * row_pixels, task_pixels); }
    ptrdiff_t first_band(ptrdiff_t round) const { return round / 2 * shared; }
    ptrdiff_t bands_of(ptrdiff_t round) const { return clamp(units() - first_band(round), 0, shared); }
    ptrdiff_t rows_of(ptrdiff_t round) const { return bands_of(round) * rows * phases; }
    ptrdiff_t shares(ptrdiff_t round) const {
        return clamp(rows_of(round), 0, threads == 1 ? 1 : 4 * threads);
    }

    // ---- tasks
    AmxRow row_of(const Places &at, const AmxCall &call, ptrdiff_t n) const {
        AmxRow row;
        row.x = call.x + n * H * W * x_pitch * x_bytes, row.x_bytes = x_bytes, row.to = at.planes;
        row.H = H, row.W = W, row.C = C, row.x_pitch = x_pitch;
        row.y = -Ph, row.Pw = Pw, row.step = column_step, row.pitch = row_pixels * pixel_columns;
        row.chunk = pieces * piece, row.piece = piece;
        row.Kh = Kh, row.Dh = Dh, row.across = Kw * C, row.size = window;
        row.c = (int)chunk, row.bad = at.bad;
        return row;
    }
    // At pixel `pixel` of the outputs of all images.
    AmxTask task_of(const Places &at, const AmxCall &call, ptrdiff_t pixel_index) const {
        AmxTask task;
        task.x = at.planes, task.sums = at.sums;
        task.weight = (const uint16_t *)weight, task.bias = (const float *)bias, task.offset = offset;
        task.out = call.out, task.out_bytes = out_bytes, task.residual = call.residual, task.relu = relu != 0;
        task.weight_step = packed * 2 * AMX_TILE, task.pieces = (int)pieces;
        task.steps = steps(), task.piece = piece, task.pixel = pixel();
        task.pitch = row_pixels, task.Ow = Ow, task.K = K;
        task.out_pitch = out_pitch, task.residual_pitch = residual_pitch;
        task.first = 0;
        amx_advance(task, pixel_index);
        return task;
    }

    // Row `index` of the planes, phase by phase, of band `unit` of all images.
    void split_row(const Places &at, const AmxCall &call, ptrdiff_t unit, ptrdiff_t index) const {
        const ptrdiff_t bands = ceil(Oh, band_rows), n = unit / bands, band = unit - n * bands,
                        phase = index / rows;
        AmxRow row = row_of(at, call, n);
        row.y = (band * band_rows + index - phase * rows) * Sh + phase - Ph;
        row.to += index * row.pitch * (window ? window : chunk);
        amx_split(&row, (int)pieces);
    }
    // `count` outputs of the band from `first` on, for one block of filters.
    void multiply(const Places &at, const AmxCall &call, ptrdiff_t unit, ptrdiff_t block, ptrdiff_t first,
                  ptrdiff_t count) const {
        const ptrdiff_t bands = ceil(Oh, band_rows), n = unit / bands, row0 = (unit - n * bands) * band_rows;
        AmxTask task = task_of(at, call, (n * Oh + row0) * Ow);
        amx_select(task, block);
        // The last row ends with its last output: what is beyond may lie outside the planes.
        const ptrdiff_t all = (clamp(Oh - row0, 0, band_rows) - 1) * task.pitch + Ow;
        task.first = first;
        task.end = clamp(first + count, 0, all);
        if (task.first < task.end) amx_task(&task);
    }
    void band(const Places &at, const AmxCall &call, ptrdiff_t unit) const {
        for (ptrdiff_t index = 0; index < rows * phases; index++) split_row(at, call, unit, index);
        for (ptrdiff_t block = 0; block < blocks(); block++)
            multiply(at, call, unit, block, 0, band_rows * row_pixels);
    }
    // Some pixels of an image and all filters, `together` at a time, for kernels whose pixels share
    // nothing: 1x1 without stride and padding, and windows. The pieces of a unit stay in L1 or close to it;
    // through the planes of a band they would go to L2 and back, at some ten cycles a line.
    void pixels(const Places &at, const AmxCall &call, ptrdiff_t index) const {
        const ptrdiff_t image = ceil(Oh * Ow, task_pixels), n = index / image,
                        first = index % image * task_pixels;
        const ptrdiff_t end = clamp(first + task_pixels, 0, Oh * Ow);
        const AmxRow row = row_of(at, call, n);
        for (ptrdiff_t q = first; q < end; q += together) {
            const ptrdiff_t count = clamp(end - q, 0, together);
            AmxRow r = row;
            if (r.size) {
                for (ptrdiff_t p = 0; p < count;
                     p += r.pitch) {  // a run of neighbours in a row of the output
                    const ptrdiff_t y = (q + p) / Ow, column = q + p - y * Ow;
                    r.pitch = clamp(Ow - column, 0, count - p);
                    r.y = row.y + y * Sh;
                    r.Pw = row.Pw - column * row.step;
                    r.to = row.to + p * r.size;
                    amx_split(&r, (int)pieces);
                }
            } else {
                r.x += q * x_pitch * x_bytes;
                r.y = 0;
                r.W = r.pitch = count;
                amx_split(&r, (int)pieces);
            }
            AmxTask t = task_of(at, call, n * Oh * Ow + q);
            t.pitch = t.Ow = t.end = count;
            for (ptrdiff_t block = 0; block < blocks(); block++) {
                AmxTask own = t;
                amx_select(own, block);
                amx_task(&own);
            }
        }
    }
};

}  // namespace jsc
