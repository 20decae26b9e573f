// A map copied to another place and layout, with a border around it.
//
//   out[n, y + top, x + left, c] = in[n, y, x, order[c]],   in the border as torch's modes of padding say:
//
//   fill        one value               reflect    in[-y] above, in[2 (H - 1) - y] below, columns likewise
//   replicate   the nearest pixel       circular   in[y + H] above, in[y - H] below
//
// The one instruction that takes maps with any step between channels. Planar images (NCHW) become
// channels-last and back by transposes in registers: L x L numbers at a time, 4 x 4 where there are fewer;
// two to four channels that lie side by side are interleaved from as many vectors. `order` (int32, or 0 for
// none) says which input channel an output channel is; -1 is fill. An order that exchanges groups with their
// members (a channel shuffle) is a transpose of each pixel, and done as one.
//
// A pixel shuffle by r is r copies. Copy i writes rows i, i + r, ... of the output as W pixels of r C
// channels (a map whose rows are r rows and whose pixels are r pixels), order[j C + c] = c r r + i r + j.
//
// Where rows follow one another in both maps and there is no border, all pixels are one row, cut into tasks
// anywhere.
#pragma once
#include <cstdlib>

#include "network/channels.h"

namespace jsc::network {

enum BorderKind : int64_t { border_fill, border_reflect, border_replicate, border_circular };

struct CopyFields {
    Map x, out;
    int64_t top, left, border;
    double fill;
    uint64_t order;
};

// A row of `pixels` pixels of `channels` channels, and the steps between them.
struct Steps {
    int64_t pixels, channels;
    int64_t x_pixel, x_channel, out_pixel, out_channel;
};

struct CopyKernel {
    // Lanes of the vector j of C side by side: lane l is number e = j L + l, pixel e / C of channel e % C.
    template <int C, int j, int c, class F, size_t... l>
    JSC_INLINE F mix_in(F sum, F channel, std::index_sequence<l...>) {
        constexpr int L = sizeof...(l);
        return shuffle<((j * L + (int)l) % C == c ? L + (j * L + (int)l) / C : (int)l)...>(sum, channel);
    }
    // The reverse: lane l of channel c is number l C + c, which is in vector j or not.
    template <int C, int c, int j, class F, size_t... l>
    JSC_INLINE F pick(F sum, F numbers, std::index_sequence<l...>) {
        constexpr int L = sizeof...(l);
        return shuffle<(((int)l * C + c) / L == j ? L + ((int)l * C + c) % L : (int)l)...>(sum, numbers);
    }
    template <int C, int j, class F, class Lanes>
    JSC_INLINE F side_by_side(const F *channel, Lanes lanes) {
        F v = mix_in<C, j, 0>(channel[0], channel[0], lanes);
        v = mix_in<C, j, 1>(v, channel[1], lanes);
        if constexpr (C > 2) v = mix_in<C, j, 2>(v, channel[2], lanes);
        if constexpr (C > 3) v = mix_in<C, j, 3>(v, channel[3], lanes);
        return v;
    }
    template <int C, int c, class F, class Lanes>
    JSC_INLINE F one_channel(const F *numbers, Lanes lanes) {
        F v = pick<C, c, 0>(numbers[0], numbers[0], lanes);
        v = pick<C, c, 1>(v, numbers[1], lanes);
        if constexpr (C > 2) v = pick<C, c, 2>(v, numbers[2], lanes);
        if constexpr (C > 3) v = pick<C, c, 3>(v, numbers[3], lanes);
        return v;
    }
    // C planes to pixels of C numbers (`together`), or back. The pixels done.
    template <class I, int C, bool together>
    JSC_INLINE int64_t interleave(const float *x, float *out, int64_t pixels, int64_t plane) {
        using F = Vec<I, float>;
        constexpr int L = lanes<I, float>;
        constexpr std::make_index_sequence<L> every{};
        int64_t w = 0;
        for (; w + L <= pixels; w += L) {
            F v[4] = {};
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) v[c] = load<F>(together ? x + c * plane + w : x + w * C + c * L);
            float *to = together ? out + w * C : out + w;
            const int64_t step = together ? L : plane;
            store(to, together ? side_by_side<C, 0>(v, every) : one_channel<C, 0>(v, every));
            store(to + step, together ? side_by_side<C, 1>(v, every) : one_channel<C, 1>(v, every));
            if constexpr (C > 2)
                store(to + 2 * step, together ? side_by_side<C, 2>(v, every) : one_channel<C, 2>(v, every));
            if constexpr (C > 3)
                store(to + 3 * step, together ? side_by_side<C, 3>(v, every) : one_channel<C, 3>(v, every));
        }
        return w;
    }
    // L vectors along the axis that is dense in x, turned, and stored along the one that is dense in out: A
    // numbers of the first axis, B of the second. The last blocks overlap those before them.
    template <class I>
    JSC_INLINE void turn(const float *x, float *out, int64_t A, int64_t B, int64_t from, int64_t to) {
        using F = Vec<I, float>;
        constexpr int L = lanes<I, float>;
        for (int64_t a = 0; a < A; a += L)
            for (int64_t b = 0; b < B; b += L) {
                const int64_t a0 = std::min(a, A - L), b0 = std::min(b, B - L);
                F block[L];
#pragma GCC unroll 16
                for (int i = 0; i < L; i++) block[i] = load<F>(x + (b0 + i) * from + a0);
                transpose<I, float>(block);
#pragma GCC unroll 16
                for (int i = 0; i < L; i++) store(out + (a0 + i) * to + b0, block[i]);
            }
    }
    template <class I, bool together>
    JSC_INLINE int64_t few_channels(const float *x, float *out, const Steps &s) {
        const int64_t plane = together ? s.x_channel : s.out_channel;
        switch (s.channels) {
        case 2: return interleave<I, 2, together>(x, out, s.pixels, plane);
        case 3: return interleave<I, 3, together>(x, out, s.pixels, plane);
        case 4: return interleave<I, 4, together>(x, out, s.pixels, plane);
        default: return 0;
        }
    }
    template <class I>
    JSC_INLINE void row(const float *x, float *out, const Steps &s) {
        constexpr int L = lanes<I, float>;
        const int64_t least = std::min(s.pixels, s.channels);
        const bool to_last = s.x_pixel == 1 && s.out_channel == 1;
        const bool to_planes = s.x_channel == 1 && s.out_pixel == 1, few = s.channels <= 4;
        int64_t done = 0;
        if (s.x_channel == 1 && s.out_channel == 1) {
            const bool dense = s.x_pixel == s.channels && s.out_pixel == s.channels;
            const int64_t pixels = dense ? 1 : s.pixels, numbers = dense ? s.pixels * s.channels : s.channels;
            for (int64_t w = 0; w < pixels; w++)
                each_channel<I, 1>(0, numbers, [&](auto group, int64_t c) JSC_BODY {
                    using F = typename decltype(group)::Vector;
                    store(out + w * s.out_pixel + c, load<F>(x + w * s.x_pixel + c));
                });
            return;
        }
        if (to_last && few && s.out_pixel == s.channels) done = few_channels<I, true>(x, out, s);
        else if (to_planes && few && s.x_pixel == s.channels) done = few_channels<I, false>(x, out, s);
        else if ((to_last || to_planes) && least >= 4) {
            const int64_t A = to_last ? s.pixels : s.channels, B = to_last ? s.channels : s.pixels;
            const int64_t from = to_last ? s.x_channel : s.x_pixel;
            const int64_t to = to_last ? s.out_pixel : s.out_channel;
            if (least >= L) turn<I>(x, out, A, B, from, to);
            else turn<Base>(x, out, A, B, from, to);
            return;
        }
        for (int64_t w = done; w < s.pixels; w++)
            for (int64_t c = 0; c < s.channels; c++)
                out[w * s.out_pixel + c * s.out_channel] = x[w * s.x_pixel + c * s.x_channel];
    }
    template <class I>
    JSC_INLINE void ordered_row(const CopyFields &f, int64_t groups, const float *x, float *out,
                                int64_t pixels) {
        const int32_t *order = constant<int32_t>(f.order);
        const int64_t members = groups ? f.out.C / std::abs(groups) : 0;
        for (int64_t w = 0; w < pixels; w++, x += f.x.pixel, out += f.out.pixel) {
            if (groups > 0) row<I>(x, out, {members, groups, 1, members, groups, 1});
            else if (groups < 0) row<I>(x, out, {-groups, members, members, 1, 1, -groups});
            else
                for (int64_t c = 0; c < f.out.C; c++)
                    out[c * f.out.channel] = order[c] < 0 ? (float)f.fill : x[order[c] * f.x.channel];
        }
    }
    JSC_INLINE void fill(const CopyFields &f, float *out, int64_t first, int64_t end) {
        for (int64_t w = first; w < end; w++)
            for (int64_t c = 0; c < f.out.C; c++) out[w * f.out.pixel + c * f.out.channel] = (float)f.fill;
    }
    // The row or column of n that stands at i; -1 for none. Torch has borders that one turn reaches.
    static inline __attribute__((always_inline)) int64_t source(int64_t i, int64_t n, int64_t border) {
        if (i >= 0 && i < n) return i;
        switch (border) {
        case border_reflect: return i < 0 ? -i : 2 * (n - 1) - i;
        case border_replicate: return i < 0 ? 0 : n - 1;
        case border_circular: return i < 0 ? i + n : i - n;
        default: return -1;
        }
    }
    // Pixels first, ..., end - 1 of the border, beside row x of the map.
    template <class I>
    JSC_INLINE void beside(const CopyFields &f, const float *x, float *out, int64_t first, int64_t end) {
        if (f.border == border_fill) return fill(f, out, first, end);
        for (int64_t w = first; w < end; w++) {
            const float *from = x + source(w - f.left, f.x.W, f.border) * f.x.pixel;
            float *to = out + w * f.out.pixel;
            if (f.x.channel == 1 && f.out.channel == 1)
                each_channel<I, 1>(0, f.out.C, [&](auto group, int64_t c) JSC_BODY {
                    using F = typename decltype(group)::Vector;
                    store(to + c, load<F>(from + c));
                });
            else
                for (int64_t c = 0; c < f.out.C; c++) to[c * f.out.channel] = from[c * f.x.channel];
        }
    }
    // Rows y, ..., of which pixels w, ..., w_end - 1.
    template <class I>
    JSC_INLINE void run(const CopyFields *fields, int64_t groups, int64_t n, int64_t first, int64_t rows,
                        int64_t w, int64_t w_end, const Call *call) {
        const CopyFields &f = *fields;
        for (int64_t y = first; y < first + rows; y++) {
            float *out = at(f.out, *call, n, y);
            const int64_t from = source(y - f.top, f.x.H, f.border);
            if (from < 0) {
                fill(f, out, 0, f.out.W);
                continue;
            }
            const int64_t inside = std::max(w, f.left), inside_end = std::min(w_end, f.left + f.x.W);
            const float *begin = at(f.x, *call, n, from), *x = begin + (inside - f.left) * f.x.pixel;
            beside<I>(f, begin, out, w, f.left);
            const int64_t pixels = inside_end - inside;
            float *to = out + inside * f.out.pixel;
            if (f.order) ordered_row<I>(f, groups, x, to, pixels);
            else row<I>(x, to, {pixels, f.out.C, f.x.pixel, f.x.channel, f.out.pixel, f.out.channel});
            beside<I>(f, begin, out, f.left + f.x.W, w_end);
        }
    }
};

struct Copy final : Instruction {
    CopyFields f;
    int64_t rows, columns;  // of a task
    int64_t groups = 0;  // of a channel shuffle; negative where they have few members each
    explicit Copy(const CopyFields &fields) : f(fields) {
        const bool same = f.x.H == f.out.H && f.x.W == f.out.W;
        columns = f.out.W;
        if (same && f.x.row == f.x.W * f.x.pixel && f.out.row == f.out.W * f.out.pixel) {
            for (Map *m : {&f.x, &f.out}) {
                m->W *= m->H;
                m->H = 1;
            }
            columns = std::max<int64_t>(64, band_floats / f.out.C / 64 * 64);
        }
        rows = rows_to_a_band(f.out.H, f.out.W * f.out.C);
        if (f.order && f.x.channel == 1 && f.out.channel == 1 && f.x.C == f.out.C) groups = find_groups();
    }
    int64_t find_groups() const {
        const int32_t *order = constant<int32_t>(f.order);
        const int64_t C = f.out.C;
        if (C < 4 || order[0] != 0 || order[1] < 2 || C % order[1]) return 0;
        const int64_t members = order[1], shuffled = C / members;  // the second channel begins the next group
        for (int64_t c = 0; c < C; c++)
            if (order[c] != c % shuffled * members + c / shuffled) return 0;
        return members <= 4 && shuffled > 4 ? -shuffled : shuffled;
    }
    int64_t bands() const { return ceil_div(f.out.H, rows); }
    int64_t parts() const { return ceil_div(f.out.W, columns); }
    int64_t tasks(int64_t) const override { return f.out.N * bands() * parts(); }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t w = task % parts() * columns, band = task / parts(), y = band % bands() * rows;
        dispatch<CopyKernel>(isa, &f, groups, band / bands(), y, std::min(rows, f.out.H - y), w,
                             std::min(f.out.W, w + columns), &call);
    }
};

}  // namespace jsc::network
