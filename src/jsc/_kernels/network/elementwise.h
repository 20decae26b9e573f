// Arithmetic of a map with another operand, number by number:  out = act(op(x, b)).
//
//   identity  x          add  x + b     sub  x - b     mul  x b     div  x / b
//   max, min  of x and b, NaN if one is               affine  scale[c] x + shift[c]
//
// b is a map of the same size, a map of one pixel (N, 1, 1, C) or one channel (N, H, W, 1), a number for each
// channel (constants `scale`, `shift`), or one number.
#pragma once
#include "network/activation.h"

namespace jsc::network {

enum ElementwiseOp : int64_t { op_identity, op_add, op_sub, op_mul, op_div, op_max, op_min, op_affine };
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

struct ElementwiseKernel {
    template <class F>
    JSC_INLINE F combine(int64_t op, F x, F b) {
        switch (op) {
        case op_add: return x + b;
        case op_sub: return x - b;
        case op_mul: return x * b;
        case op_div: return x / b;
        case op_max: return (x > b) | (x != x) ? x : b;
        case op_min: return (x < b) | (x != x) ? x : b;
        default: return x;
        }
    }
    // Channels c, ... of one pixel; `other` is the operand's number for channel c.
    template <class F>
    JSC_INLINE void numbers(const ElementwiseFields &f, const float *x, const float *other, float *out,
                            int64_t c) {
        F value = load<F>(x + c);
        if (f.op == op_affine)
            value = value * load<F>(constant(f.scale) + c) + load<F>(constant(f.shift) + c);
        else {
            F b{};
            switch (f.operand) {
            case operand_map:
            case operand_pixel: b = load<F>(other + c); break;
            case operand_channel: b = *other - F{}; break;
            case operand_vector: b = load<F>(constant(f.scale) + c); break;
            case operand_scalar: b = (float)f.scalar - F{}; break;
            }
            value = combine<F>(f.op, value, b);
        }
        store(out + c, activate<F>(value, f.act));
    }
    template <class I>
    JSC_INLINE void run(const ElementwiseFields *fields, int64_t n, int64_t first, int64_t rows,
                        const Call *call) {
        using F = Vec<I, float>;
        typedef float One __attribute__((vector_size(4)));
        constexpr int L = lanes<I, float>;
        const ElementwiseFields &f = *fields;
        for (int64_t y = first; y < first + rows; y++)
            for (int64_t w = 0; w < f.out.W; w++) {
                const float *x = at(f.x, *call, n, y, w), *other = nullptr;
                if (f.operand == operand_pixel) other = at(f.other, *call, n);
                else if (f.operand == operand_map || f.operand == operand_channel)
                    other = at(f.other, *call, n, y, w);
                float *out = at(f.out, *call, n, y, w);
                int64_t c = 0;
                for (; c + L <= f.out.C; c += L) numbers<F>(f, x, other, out, c);
                for (; c < f.out.C; c++) numbers<One>(f, x, other, out, c);
            }
    }
};

struct Elementwise final : Instruction {
    ElementwiseFields f;
    int64_t rows;
    explicit Elementwise(const ElementwiseFields &fields) : f(fields) {
        // Where nothing depends on the channel, a dense row is one long pixel.
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
        dispatch<ElementwiseKernel>(isa, &f, task / bands, y, std::min(rows, f.out.H - y), &call);
    }
};

}  // namespace jsc::network
