// Local contrast of a plane, and its gradient, a row at a time.
//
//   v = x - G x,   s = sqrt(G v^2),   y = offset + scale v / (s + epsilon)
//   G: a Gaussian of 2 reach + 1 taps along each axis, the edge repeated beyond the plane
//
// and for a gradient g of y, with r = 1 / (s + epsilon) and G' the adjoint of G:
//   d = -scale g v r^2 / (2 s), or 0 where s is 0;   w = scale g r + 2 v G' d;   dx = w - G' w
//
// Layout: planes (H, W). Every step of a row needs rows up to `reach` above and below of the step before, so
// that steps follow each other `reach` rows apart, each with a ring of its last 2 reach + 1 rows in scratch:
// nothing but x, g and the result is ever as large as the plane, and rings stay in the second cache. A blur
// goes down first, as a weighted sum of rows, then along the row. A task is a band of rows of a plane; the
// rows around it are computed again, as their own band computes them, so that bits do not depend on bands.
//
// Numerics: sums go through the taps in order, from above and from the left.
// Source: N. Pinto, D. D. Cox, J. J. DiCarlo, Why is Real-World Visual Object Recognition Hard?, 2008;
// K. Jarrett et al., What is the Best Multi-Stage Architecture for Object Recognition?, ICCV 2009.
//
// Ladder (ms per 224x224 RGB image, deviation 4, one thread, AMD EPYC, AVX-512, forward / with backward;
// results/jpeg.md):
//   torch: padding, depthwise convolutions, NCHW                                5.0 / 12.5
//   the same, channels-last                                                     2.8 / 6.2
//   this                                                                        .53 / 1.7
// Two thirds of it are the sums: 1.3 to 1.7 cycles for each multiply-add, which reads a vector, every other
// one across two cache lines. Eight accumulators in place of four, and planes whose rings stay in the first
// cache, made no difference.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "simd/simd.h"

namespace jsc {

constexpr int CONTRAST_REACH = 128;  // at most: whoever calls sees to it

// A call: planes one after the other, `channels` sets of constants in turn.
template <class T>
struct ContrastCall {
    const T *x = nullptr, *g = nullptr;  // g: the gradient of y, or null: forward
    T *out;  // y, or the gradient of x
    ptrdiff_t planes, height, width, channels, bands;
    const T *taps;  // (reach + 1), the middle first
    ptrdiff_t reach;
    const T *constants;  // (channels, 3): offset, scale, epsilon
    T *scratch;  // (threads, scratch_numbers)

    static constexpr int SLACK = 64;  // numbers of which a row is read beyond its end
    // A row of scratch: 2 reach numbers before the first and behind the last one.
    ptrdiff_t lead() const { return (2 * reach + 15) / 16 * 16; }
    ptrdiff_t pitch() const { return lead() + (width + 2 * reach + SLACK + 15) / 16 * 16; }
    ptrdiff_t ring() const { return 2 * reach + 1; }
    ptrdiff_t scratch_numbers() const { return ((g ? 6 : 3) * ring() + 3) * pitch() + 16; }
};

template <class T>
struct ContrastBand {
    template <class I>
    struct Steps {
        typedef Vec<I, T> V;
        static constexpr int L = lanes<I, T>, MOST = 2 * CONTRAST_REACH + 1;

        const ContrastCall<T> &c;
        T *free, *line, *wide, *blurred;
        struct Ring {
            T *first;
            ptrdiff_t pitch, rows;
            inline __attribute__((always_inline)) T *operator[](ptrdiff_t i) const {
                return first + i % rows * pitch;
            }
        };
        struct Weighted {
            const T *at[MOST];
            T weight[MOST];
            int count;
            inline __attribute__((always_inline)) void add(const T *row, T by) {
                at[count] = row, weight[count++] = by;
            }
        };

        inline __attribute__((always_inline)) Steps(const ContrastCall<T> &call, T *scratch) : c(call) {
            const ptrdiff_t skip = -((uintptr_t)scratch / sizeof(T)) % 16;  // to a cache line, or half of one
            free = scratch + skip + c.lead();
            line = ring(1).first, wide = ring(1).first, blurred = ring(1).first;
        }
        inline __attribute__((always_inline)) Ring ring(ptrdiff_t rows) {
            const Ring made = {free, c.pitch(), rows};
            free += rows * c.pitch();
            return made;
        }

        // to[i] = sum over k of weight[k] at[k][i], i < n; up to SLACK numbers more are written.
        inline __attribute__((always_inline)) void sum(const Weighted &rows, ptrdiff_t n, T *__restrict to) {
            for (ptrdiff_t i = 0; i < n; i += 4 * L) {
                V a = {}, b = {}, d = {}, e = {};
                for (int k = 0; k < rows.count; k++) {
                    const T *from = rows.at[k] + i;
                    const V by = V{} + rows.weight[k];
                    a += by * load<V>(from), b += by * load<V>(from + L);
                    d += by * load<V>(from + 2 * L), e += by * load<V>(from + 3 * L);
                }
                store(to + i, a), store(to + i + L, b), store(to + i + 2 * L, d), store(to + i + 3 * L, e);
            }
        }
        inline __attribute__((always_inline)) void along(const T *from, ptrdiff_t n, T *to) {
            Weighted shifted;
            shifted.count = 0;
            for (ptrdiff_t k = -c.reach; k <= c.reach; k++) shifted.add(from + k, c.taps[k < 0 ? -k : k]);
            sum(shifted, n, to);
        }

        // Row y of G rows, and of G' rows: there, what lies beyond an edge belongs to the edge.
        inline __attribute__((always_inline)) const T *blur(const Ring &ring, ptrdiff_t y) {
            const ptrdiff_t H = c.height, W = c.width, R = c.reach;
            Weighted rows;
            rows.count = 0;
            const T *row = ring[std::max<ptrdiff_t>(0, y - R)], *past = ring.first + ring.rows * ring.pitch;
            for (ptrdiff_t k = -R; k <= R; k++) {
                rows.add(row, c.taps[k < 0 ? -k : k]);
                if (y + k >= 0 && y + k < H - 1 && (row += ring.pitch) == past) row = ring.first;
            }
            sum(rows, W, line);
            for (ptrdiff_t k = 1; k <= R; k++) line[-k] = line[0], line[W - 1 + k] = line[W - 1];
            along(line, W, blurred);
            return blurred;
        }
        inline __attribute__((always_inline)) const T *adjoint(const Ring &ring, ptrdiff_t y) {
            const ptrdiff_t H = c.height, W = c.width, R = c.reach;
            const ptrdiff_t first = y == 0 ? -R : y, last = y == H - 1 ? y + R : y;
            Weighted rows;
            rows.count = 0;
            for (ptrdiff_t i = std::max<ptrdiff_t>(0, y - R); i <= std::min(H - 1, y + R); i++) {
                T weight = 0;
                for (ptrdiff_t at = std::max(first, i - R); at <= std::min(last, i + R); at++)
                    weight += c.taps[at < i ? i - at : at - i];
                rows.add(ring[i], weight);
            }
            sum(rows, W, line);
            for (ptrdiff_t k = 1; k <= 2 * R; k++) line[-k] = 0, line[W - 1 + k] = 0;
            along(line - R, W + 2 * R, wide - R);
            memcpy(blurred, wide, sizeof(T) * W);
            for (ptrdiff_t k = 1; k <= R; k++) blurred[0] += wide[-k], blurred[W - 1] += wide[W - 1 + k];
            return blurred;
        }

        inline __attribute__((always_inline)) void centre(const T *__restrict x, const T *__restrict mean,
                                                          T *__restrict v, T *__restrict square) {
            for (ptrdiff_t i = 0; i < c.width; i++) v[i] = x[i] - mean[i], square[i] = v[i] * v[i];
        }
        inline __attribute__((always_inline)) void divide(const T *__restrict v, const T *__restrict square,
                                                          const T *constants, T *__restrict y) {
            const T offset = constants[0], scale = constants[1], epsilon = constants[2];
            for (ptrdiff_t i = 0; i < c.width; i++)
                y[i] = offset + scale * v[i] / (std::sqrt(square[i]) + epsilon);
        }
        // e = scale g r, and d.
        inline __attribute__((always_inline)) void derive(const T *__restrict g, const T *__restrict v,
                                                          const T *__restrict square, const T *constants,
                                                          T *__restrict e, T *__restrict d) {
            const T scale = constants[1], epsilon = constants[2];
            for (ptrdiff_t i = 0; i < c.width; i++) {
                const T s = std::sqrt(square[i]), r = 1 / (s + epsilon), a = scale * g[i] * r;
                e[i] = a;
                d[i] = s == 0 ? 0 : a * v[i] * r * (T)-0.5 / s;
            }
        }
        inline __attribute__((always_inline)) void join(const T *__restrict e, const T *__restrict v,
                                                        const T *__restrict u, T *__restrict w) {
            for (ptrdiff_t i = 0; i < c.width; i++) w[i] = e[i] + 2 * v[i] * u[i];
        }
        inline __attribute__((always_inline)) void subtract(const T *__restrict w, const T *__restrict u,
                                                            T *__restrict dx) {
            for (ptrdiff_t i = 0; i < c.width; i++) dx[i] = w[i] - u[i];
        }
    };

    template <class I>
    JSC_INLINE void run(const ContrastCall<T> *call, ptrdiff_t index, ptrdiff_t thread) {
        const ContrastCall<T> &c = *call;
        const ptrdiff_t plane = index / c.bands, band = index % c.bands;
        const ptrdiff_t H = c.height, W = c.width, R = c.reach;
        const ptrdiff_t first = band * H / c.bands, end = (band + 1) * H / c.bands;
        const T *x = c.x + plane * H * W, *constants = c.constants + 3 * (plane % c.channels);
        const T *g = c.g ? c.g + plane * H * W : nullptr;
        T *out = c.out + plane * H * W;
        Steps<I> s(c, c.scratch + thread * c.scratch_numbers());
        const auto pixels = s.ring(c.ring()), v = s.ring(c.ring()), squares = s.ring(c.ring());
        const auto e = s.ring(g ? c.ring() : 0), d = s.ring(g ? c.ring() : 0), w = s.ring(g ? c.ring() : 0);
        const ptrdiff_t steps = g ? 4 : 2;  // after the one that copies a row of x, `reach` rows apart
        // Whether row y is one of those that the band needs `behind` steps before the last.
        const auto needed = [&](ptrdiff_t y, ptrdiff_t behind) __attribute__((always_inline)) {
            return y >= std::max<ptrdiff_t>(0, first - behind * R) && y < std::min(H, end + behind * R);
        };
        for (ptrdiff_t t = std::max<ptrdiff_t>(0, first - steps * R); t < end + steps * R; t++) {
            if (t < H) memcpy(pixels[t], x + t * W, sizeof(T) * W);
            const ptrdiff_t y = t - R, z = t - 2 * R;
            if (needed(y, steps - 1)) s.centre(pixels[y], s.blur(pixels, y), v[y], squares[y]);
            if (!g) {
                if (needed(z, 0)) s.divide(v[z], s.blur(squares, z), constants, out + z * W);
                continue;
            }
            if (needed(z, 2)) s.derive(g + z * W, v[z], s.blur(squares, z), constants, e[z], d[z]);
            const ptrdiff_t o = t - 3 * R, p = t - 4 * R;
            if (needed(o, 1)) s.join(e[o], v[o], s.adjoint(d, o), w[o]);
            if (needed(p, 0)) s.subtract(w[p], s.adjoint(w, p), out + p * W);
        }
    }
};
template <class T>
inline void contrast_band(int isa, const ContrastCall<T> *call, ptrdiff_t index, ptrdiff_t thread) {
    dispatch<ContrastBand<T>>(isa, call, index, thread);
}

}  // namespace jsc
