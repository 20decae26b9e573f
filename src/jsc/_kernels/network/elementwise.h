// Arithmetic of a map with another operand, number by number:  out = act(op(x, b)).
//
//   identity  x          add  x + b     sub  x - b     mul  x b     div  x / b
//   max, min  of x and b, NaN if one is               affine  scale[c] x + shift[c]
//   prelu     x, or b x where x is not above 0
//
// b is a map of the same size, a map of one pixel (N, 1, 1, C) or one channel (N, H, W, 1), a number for each
// channel (constant `scale`), or one number. `out` may lie where x or b does.
//
// The operation is chosen once for a task; bounds are part of the loop, other activations go over each row of
// numbers once more while it is in the first cache. Where nothing depends on the channel and the maps are
// dense, a row of pixels is one row of numbers.
//
// Maps are all float32, or all bfloat16: then the operation is an addition or a product of maps, or affine,
// and bounds at most follow it.
#pragma once
#include "network/channels.h"

namespace jsc::network {

enum ElementwiseOp : int64_t {
    op_identity,
    op_add,
    op_sub,
    op_mul,
    op_div,
    op_max,
    op_min,
    op_affine,
    op_prelu
};
enum OperandKind : int64_t {
    operand_none,
    operand_map,
    operand_pixel,
    operand_channel,
    operand_vector,
    operand_scalar
};

struct ElementwiseFields {
    Map x, other, out;
    int64_t op, operand;
    uint64_t scale, shift;
    double scalar;
    Activation act;
};

// T: the numbers of the maps.
template <class T>
struct ElementwiseKernel {
    static constexpr bool floats = sizeof(T) == 4;

    template <class F, int64_t op>
    JSC_INLINE F combine(F x, F b, F shift) {
        switch (op) {
        case op_add: return x + b;
        case op_sub: return x - b;
        case op_mul: return x * b;
        case op_div: return x / b;
        case op_max: return larger_of<F>(x, b);
        case op_min: return smaller_of<F>(x, b);
        case op_affine: return x * b + shift;
        case op_prelu: return x > 0.f ? x : x * b;
        default: return x;
        }
    }
    // `one`: the operand is one number for all channels of a pixel.
    template <class I, int64_t op, bool one>
    JSC_INLINE void rows(const ElementwiseFields &f, const Call &call, int64_t n, int64_t first,
                         int64_t rows) {
        const Bounds bounds = Bounds::of(f.act);
        using Operand = std::conditional_t<op == op_affine, float, T>;
        const float *shift = constant(f.shift);
        const Operand scalar = (Operand)f.scalar, *other = &scalar;
        if constexpr (floats || op == op_affine)
            if (f.operand == operand_vector || op == op_affine) other = constant(f.scale);
        const bool moves = f.operand == operand_map || f.operand == operand_channel;
        if (moves || f.operand == operand_pixel) other = at<Operand>(f.other, call, n);
        const int64_t other_row = moves ? f.other.row : 0, other_pixel = moves ? f.other.pixel : 0;
        for (int64_t y = first; y < first + rows; y++) {
            const T *x = at<T>(f.x, call, n, y);
            const Operand *b = other + y * other_row;
            T *out = at<T>(f.out, call, n, y);
            for (int64_t w = 0; w < f.out.W; w++, x += f.x.pixel, out += f.out.pixel, b += other_pixel) {
                if constexpr (op == op_identity)
                    if (beyond_bounds(f.act)) {
                        activate_numbers<I>(x, out, f.out.C, f.act);
                        continue;
                    }
                const float number = one ? load_numbers<One>(b)[0] : 0.f;
                each_channel<I, 1>(0, f.out.C, [&](auto group, int64_t c) JSC_BODY {
                    using F = typename decltype(group)::Vector;
                    F operand{}, moved{};
                    if (op != op_identity) operand = one ? F{} + number : load_numbers<F>(b + c);
                    if (op == op_affine) moved = load<F>(shift + c);
                    const F y = combine<F, op>(load_numbers<F>(x + c), operand, moved);
                    store_numbers(out + c, Bounds::apply<F>(y, bounds));
                });
                if constexpr (floats) activate_pixel<I>(out, f.out.C, f.act);
            }
        }
    }
    template <class I, int64_t op>
    JSC_INLINE void run_op(const ElementwiseFields &f, const Call &call, int64_t n, int64_t first,
                           int64_t count) {
        const bool one = f.operand == operand_channel || f.operand == operand_scalar;
        if (one) rows<I, op, true>(f, call, n, first, count);
        else rows<I, op, false>(f, call, n, first, count);
    }
    template <class I>
    JSC_INLINE void run(const ElementwiseFields *f, int64_t n, int64_t first, int64_t count,
                        const Call *call) {
        if constexpr (!floats) {
            if (f->op == op_add) run_op<I, op_add>(*f, *call, n, first, count);
            else if (f->op == op_mul) run_op<I, op_mul>(*f, *call, n, first, count);
            else rows<I, op_affine, false>(*f, *call, n, first, count);
        } else {
            switch (f->op) {
            case op_add: run_op<I, op_add>(*f, *call, n, first, count); break;
            case op_sub: run_op<I, op_sub>(*f, *call, n, first, count); break;
            case op_mul: run_op<I, op_mul>(*f, *call, n, first, count); break;
            case op_div: run_op<I, op_div>(*f, *call, n, first, count); break;
            case op_max: run_op<I, op_max>(*f, *call, n, first, count); break;
            case op_min: run_op<I, op_min>(*f, *call, n, first, count); break;
            case op_prelu: run_op<I, op_prelu>(*f, *call, n, first, count); break;
            case op_affine: rows<I, op_affine, false>(*f, *call, n, first, count); break;
            default: rows<I, op_identity, false>(*f, *call, n, first, count);
            }
        }
    }
};

struct Elementwise final : Instruction {
    ElementwiseFields f;
    int64_t rows;
    explicit Elementwise(const ElementwiseFields &fields) : f(fields) {
        const bool any_channel =
            f.op != op_affine &&
            (f.operand == operand_none || f.operand == operand_map || f.operand == operand_scalar);
        if (any_channel && dense(f.x) && dense(f.out) && (f.operand != operand_map || dense(f.other)))
            for (Map *m : {&f.x, &f.out, &f.other}) {
                m->C *= m->W;
                m->W = 1;
            }
        rows = rows_to_a_band(f.out.H, f.out.W * f.out.C);
    }
    static bool dense(const Map &m) { return m.pixel == m.C; }
    int64_t tasks(int64_t) const override { return f.out.N * ceil_div(f.out.H, rows); }
    void run(int isa, int64_t, int64_t task, const Call &call) const override {
        const int64_t bands = ceil_div(f.out.H, rows), y = task % bands * rows;
        const int64_t n = task / bands, count = std::min(rows, f.out.H - y);
        dispatch_maps<ElementwiseKernel>(isa, f.out, &f, n, y, count, &call);
    }
};

}  // namespace jsc::network
