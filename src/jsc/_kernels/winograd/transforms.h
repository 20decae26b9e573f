// The transforms of Winograd's minimal filtering F(m, 3), along one dimension, and their adjoints.
//
//   y = output(weight(w) .* input(d)):  m outputs y of 3 weights w and m + 2 inputs d
//
// Points. m = 2 has 0, 1, -1 and infinity: additions and halves only, so that integers stay exact. m = 4 has
// 0, a, -a, b, -b and infinity with a = 3/4, b = 3/2, which float32 holds exactly. They were chosen by error
// on real activations (largest error over that of torch's direct float32 convolution, layers of ResNet-18,
// GoogLeNet and SqueezeNet): F(2x4) 0.4 to 2.3 with these, 0.5 to 3.2 with the usual 0, 1, -1, 2, -2;
// F(4x4) 0.5 to 4.5 against 1.8 to 12.5.
//
// Adjoints serve the gradient of the weights: with q = output_adjoint(gradient of y) it is
// weight_adjoint(q .* input(d)).
//
// Sources: A. Lavin and S. Gray, arXiv:1509.09308; points after B. Barabasz et al., arXiv:1803.10986.
#pragma once
#include "simd/numbers.h"

namespace jsc {

template <int m>
struct Points;
template <>
struct Points<2> {
    template <class F> JSC_INLINE void input(const F *d, F *v) {
        v[0] = d[2] - d[0];
        v[1] = d[2] + d[1];
        v[2] = d[2] - d[1];
        v[3] = d[3] - d[1];
    }
    template <class F> JSC_INLINE void output(const F *p, F *y) {
        y[0] = p[0] + (p[1] + p[2]);
        y[1] = (p[1] - p[2]) + p[3];
    }
    template <class F> JSC_INLINE void output_adjoint(const F *y, F *p) {
        p[0] = y[0];
        p[1] = y[0] + y[1];
        p[2] = y[0] - y[1];
        p[3] = y[1];
    }
    template <class F> JSC_INLINE void weight(const F *w, F *u) {
        const F even = .5f * (w[0] + w[2]), odd = .5f * w[1];
        u[0] = -w[0];
        u[1] = even + odd;
        u[2] = even - odd;
        u[3] = w[2];
    }
    template <class F> JSC_INLINE void weight_adjoint(const F *u, F *w) {
        const F even = .5f * (u[1] + u[2]);
        w[0] = even - u[0];
        w[1] = .5f * (u[1] - u[2]);
        w[2] = even + u[3];
    }
};
template <>
struct Points<4> {
    static constexpr float a = .75f, b = 1.5f, aa = a * a, bb = b * b, sum = aa + bb, product = aa * bb;
    // The weights of a point over the products of its distances from the others.
    static constexpr double at_0 = 1. / product, at_a = 1. / (2 * aa * (aa - bb)),
                            at_b = 1. / (2 * bb * (bb - aa));
    template <class F> JSC_INLINE void input(const F *d, F *v) {
        v[0] = d[4] - sum * d[2] + product * d[0];
        const F even_a = d[4] - bb * d[2], odd_a = a * (d[3] - bb * d[1]);
        const F even_b = d[4] - aa * d[2], odd_b = b * (d[3] - aa * d[1]);
        v[1] = even_a + odd_a;
        v[2] = even_a - odd_a;
        v[3] = even_b + odd_b;
        v[4] = even_b - odd_b;
        v[5] = d[5] - sum * d[3] + product * d[1];
    }
    template <class F> JSC_INLINE void output(const F *p, F *y) {
        const F plus_a = p[1] + p[2], minus_a = p[1] - p[2], plus_b = p[3] + p[4], minus_b = p[3] - p[4];
        y[0] = p[0] + (plus_a + plus_b);
        y[1] = a * minus_a + b * minus_b;
        y[2] = aa * plus_a + bb * plus_b;
        y[3] = (a * aa * minus_a + b * bb * minus_b) + p[5];
    }
    template <class F> JSC_INLINE void output_adjoint(const F *y, F *p) {
        const F even_a = y[0] + aa * y[2], odd_a = a * y[1] + a * aa * y[3];
        const F even_b = y[0] + bb * y[2], odd_b = b * y[1] + b * bb * y[3];
        p[0] = y[0];
        p[1] = even_a + odd_a;
        p[2] = even_a - odd_a;
        p[3] = even_b + odd_b;
        p[4] = even_b - odd_b;
        p[5] = y[3];
    }
    template <class F, class T = std::decay_t<decltype(F{}[0])>> JSC_INLINE void weight(const F *w, F *u) {
        const F even_a = (T)at_a * (w[0] + aa * w[2]), odd_a = (T)(a * at_a) * w[1];
        const F even_b = (T)at_b * (w[0] + bb * w[2]), odd_b = (T)(b * at_b) * w[1];
        u[0] = (T)at_0 * w[0];
        u[1] = even_a + odd_a;
        u[2] = even_a - odd_a;
        u[3] = even_b + odd_b;
        u[4] = even_b - odd_b;
        u[5] = w[2];
    }
    template <class F, class T = std::decay_t<decltype(F{}[0])>> JSC_INLINE void weight_adjoint(const F *u,
                                                                                                F *w) {
        const F plus_a = (T)at_a * (u[1] + u[2]), minus_a = (T)(a * at_a) * (u[1] - u[2]);
        const F plus_b = (T)at_b * (u[3] + u[4]), minus_b = (T)(b * at_b) * (u[3] - u[4]);
        w[0] = (T)at_0 * u[0] + (plus_a + plus_b);
        w[1] = minus_a + minus_b;
        w[2] = (aa * plus_a + bb * plus_b) + u[5];
    }
};

// The input of a tile, whose first pixel is `first`, and what is zero outside the map: rows and columns from
// `top` and `left` to before `bottom` and `right` are there.
template <class X = float>  // its numbers
struct Whole {  // all of it is there
    const X *first;
    ptrdiff_t row, pixel;
    template <class F>
    inline __attribute__((always_inline)) F at(int i, int j, ptrdiff_t c) const {
        return load_numbers<F>(first + i * row + j * pixel + c);
    }
};
template <class X = float>
struct Clipped : Whole<X> {
    ptrdiff_t top, left, bottom, right;
    template <class F>
    inline __attribute__((always_inline)) F at(int i, int j, ptrdiff_t c) const {
        return i >= top && i < bottom && j >= left && j < right ? Whole<X>::template at<F>(i, j, c) : F{};
    }
};

// Channels c, ... of one tile of mv x mh outputs.
template <class F, int mv, int mh, class Input>
JSC_INLINE void transform_input(const Input &input, ptrdiff_t c, float *to, ptrdiff_t step) {
    constexpr int nv = mv + 2, nh = mh + 2;
    F half[nv][nh];
#pragma GCC unroll 6
    for (int j = 0; j < nh; j++) {
        F column[nv], turned[nv];
#pragma GCC unroll 6
        for (int i = 0; i < nv; i++) column[i] = input.template at<F>(i, j, c);
        Points<mv>::template input<F>(column, turned);
#pragma GCC unroll 6
        for (int i = 0; i < nv; i++) half[i][j] = turned[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < nv; i++) {
        F row[nh];
        Points<mh>::template input<F>(half[i], row);
#pragma GCC unroll 6
        for (int j = 0; j < nh; j++) store(to + (i * nh + j) * step + c, row[j]);
    }
}
// Filters k, ... of the gradient of one tile: the adjoint of `transform_output`.
template <class F, int mv, int mh, class Input>
JSC_INLINE void transform_output_adjoint(const Input &grad, ptrdiff_t k, float *to, ptrdiff_t step) {
    constexpr int nv = mv + 2, nh = mh + 2;
    F half[nv][mh];
#pragma GCC unroll 4
    for (int j = 0; j < mh; j++) {
        F column[mv], turned[nv];
#pragma GCC unroll 4
        for (int i = 0; i < mv; i++) column[i] = grad.template at<F>(i, j, k);
        Points<mv>::template output_adjoint<F>(column, turned);
#pragma GCC unroll 6
        for (int i = 0; i < nv; i++) half[i][j] = turned[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < nv; i++) {
        F row[nh];
        Points<mh>::template output_adjoint<F>(half[i], row);
#pragma GCC unroll 6
        for (int j = 0; j < nh; j++) store(to + (i * nh + j) * step + k, row[j]);
    }
}
template <class F, int mv, int mh>
JSC_INLINE void transform_output(const float *from, ptrdiff_t step, float *y) {
    constexpr int nv = mv + 2, nh = mh + 2, L = sizeof(F) / 4;
    F half[mv][nh];
#pragma GCC unroll 6
    for (int j = 0; j < nh; j++) {
        F column[nv], turned[mv];
#pragma GCC unroll 6
        for (int i = 0; i < nv; i++) column[i] = load<F>(from + (i * nh + j) * step);
        Points<mv>::template output<F>(column, turned);
#pragma GCC unroll 4
        for (int i = 0; i < mv; i++) half[i][j] = turned[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < mv; i++) {
        F row[mh];
        Points<mh>::template output<F>(half[i], row);
#pragma GCC unroll 4
        for (int j = 0; j < mh; j++) store(y + (i * mh + j) * L, row[j]);
    }
}

}  // namespace jsc
