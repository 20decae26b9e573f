// Group normalisation: mean and variance over all pixels of an image and the channels of a group.
//
//   out = act((x - mean) / sqrt(variance + eps) weight[c] + shift[c])
//
// Three rounds. First the sums of x and x^2 of each group over a task's pixels, in float64, where the squares
// of float32 are exact: sum x^2 - (sum x)^2 / n then loses less than the rounding of x itself. They lie in
// memory that the threads share. Then these are added up, in the order of the tasks, to three numbers for
// each channel of an image: mean, scale and shift. Then out = act((x - mean) scale + shift). What float32
// loses of the mean is in the shift; x scale + (shift - mean scale), which torch has, loses more where the
// mean is far from zero. How pixels are cut follows from the sizes, and so do the bits.
//
// The shared memory: for each image (tasks, groups, 2) sums, and behind all of them (N, 3, C) floats.
// Source: Y. Wu and K. He, Group Normalization, 2018.
#pragma once
#include "network/channels.h"

namespace jsc::network {

struct GroupNormFields {
    Map x, out;
    int64_t groups;
    int64_t pixels;  // of a task
    int64_t workspace;  // where it begins in the arena, in floats
    double eps;
    uint64_t weight, shift;  // of C floats, or 0
    Activation act;
};

struct GroupNormKernel {
    // body(pixel of x, pixel of out, count) for pixels first, ..., end - 1 by runs that lie in one row.
    template <class Body>
    JSC_INLINE void each_run(const GroupNormFields &f, const Call &call, int64_t n, int64_t first,
                             int64_t end, Body body) {
        for (int64_t p = first; p < end;) {
            const int64_t y = p / f.x.W, w = p % f.x.W, count = std::min(end - p, f.x.W - w);
            body((const float *)at(f.x, call, n, y, w), at(f.out, call, n, y, w), count);
            p += count;
        }
    }
    // The sums of V vectors of `bytes` bytes of float64, from channel c on.
    template <int bytes, int V>
    JSC_INLINE void add_up(const GroupNormFields &f, const Call &call, int64_t n, int64_t first, int64_t end,
                           int64_t c, double *sums, double *squares) {
        using Float = typename VectorOf<float, bytes / 2>::type;
        using Double = typename VectorOf<double, bytes>::type;
        constexpr int L = bytes / 8;
        Double sum[V] = {}, square[V] = {};
        each_run(f, call, n, first, end, [&](const float *x, float *, int64_t count) JSC_BODY {
            for (int64_t i = 0; i < count; i++, x += f.x.pixel)
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) {
                    const Double number = __builtin_convertvector(load<Float>(x + c + v * L), Double);
                    sum[v] += number;
                    square[v] += number * number;
                }
        });
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            store(sums + c + v * L, sum[v]);
            store(squares + c + v * L, square[v]);
        }
    }
    template <class I>
    JSC_INLINE void sums(const GroupNormFields &f, const Call &call, int64_t n, int64_t first, int64_t end,
                         double *out) {
        constexpr int L = lanes<I, double>;
        const int64_t C = f.x.C, members = C / f.groups;
        double *sum = (double *)call.scratch, *square = sum + C;
        int64_t c = 0;
        for (; c + 4 * L <= C; c += 4 * L) add_up<I::bytes, 4>(f, call, n, first, end, c, sum, square);
        for (; c + L <= C; c += L) add_up<I::bytes, 1>(f, call, n, first, end, c, sum, square);
        for (; c < C; c++) add_up<8, 1>(f, call, n, first, end, c, sum, square);
        for (int64_t g = 0; g < f.groups; g++, out += 2) {
            out[0] = out[1] = 0;
            for (c = g * members; c < (g + 1) * members; c++) {
                out[0] += sum[c];
                out[1] += square[c];
            }
        }
    }
    // Mean, scale and shift of each channel, from the sums of all tasks of an image.
    JSC_INLINE void coefficients(const GroupNormFields &f, const double *sums, int64_t tasks, float *means) {
        const int64_t C = f.x.C, members = C / f.groups;
        const float *weight = constant(f.weight), *shift = constant(f.shift);
        float *scales = means + C, *shifts = scales + C;
        const double numbers = (double)(f.x.H * f.x.W * members);
        for (int64_t g = 0; g < f.groups; g++) {
            double sum = 0, square = 0;
            for (int64_t t = 0; t < tasks; t++) {
                sum += sums[2 * (t * f.groups + g)];
                square += sums[2 * (t * f.groups + g) + 1];
            }
            const double mean = sum / numbers, difference = square / numbers - mean * mean;
            const float rounded = (float)mean;
            const double variance = difference < 0 ? 0 : difference;  // NaN stays
            const double factor = 1 / __builtin_sqrt(variance + f.eps);
            for (int64_t c = g * members; c < (g + 1) * members; c++) {
                const double by = weight ? factor * weight[c] : factor;
                means[c] = rounded;
                scales[c] = (float)by;
                shifts[c] = (float)((shift ? shift[c] : 0) - (mean - rounded) * by);
            }
        }
    }
    template <class I>
    JSC_INLINE void apply(const GroupNormFields &f, const Call &call, int64_t n, int64_t first, int64_t end,
                          const float *mean) {
        const Bounds bounds = Bounds::of(f.act);
        const int64_t C = f.x.C;
        const float *scale = mean + C, *shift = scale + C;
        each_run(f, call, n, first, end, [&](const float *x, float *out, int64_t count) JSC_BODY {
            for (int64_t i = 0; i < count; i++, x += f.x.pixel, out += f.out.pixel) {
                each_channel<I, 1>(0, C, [&](auto group, int64_t c) JSC_BODY {
                    using F = typename decltype(group)::Vector;
                    const F y =
                        (load<F>(x + c) - load<F>(mean + c)) * load<F>(scale + c) + load<F>(shift + c);
                    store(out + c, Bounds::apply<F>(y, bounds));
                });
                activate_pixel<I>(out, C, f.act);
            }
        });
    }
    template <class I>
    JSC_INLINE void run(const GroupNormFields *fields, int64_t tasks, int64_t round, int64_t n, int64_t task,
                        const Call *call) {
        const GroupNormFields &f = *fields;
        double *sums_of_all = (double *)((float *)call->regions[0] + f.workspace);
        float *mean = (float *)(sums_of_all + f.x.N * tasks * f.groups * 2) + n * 3 * f.x.C;
        double *own = sums_of_all + n * tasks * f.groups * 2;
        const int64_t first = task * f.pixels, end = std::min(f.x.H * f.x.W, first + f.pixels);
        if (round == 0) sums<I>(f, *call, n, first, end, own + task * f.groups * 2);
        else if (round == 1) coefficients(f, own, tasks, mean);
        else apply<I>(f, *call, n, first, end, mean);
    }
};

struct GroupNorm final : Instruction {
    GroupNormFields f;
    explicit GroupNorm(const GroupNormFields &fields) : f(fields) {
        if (f.x.row == f.x.W * f.x.pixel && f.out.row == f.out.W * f.out.pixel)  // one row
            for (Map *m : {&f.x, &f.out}) {
                m->W *= m->H;
                m->H = 1;
            }
    }
    int64_t parts() const { return ceil_div(f.x.H * f.x.W, f.pixels); }
    int64_t rounds() const override { return 3; }
    int64_t tasks(int64_t round) const override { return f.x.N * (round == 1 ? 1 : parts()); }
    int64_t scratch_bytes() const override { return 16 * f.x.C; }
    void run(int isa, int64_t round, int64_t task, const Call &call) const override {
        const int64_t tasks = parts(), n = round == 1 ? task : task / tasks;
        dispatch<GroupNormKernel>(isa, &f, tasks, round, n, round == 1 ? 0 : task % tasks, &call);
    }
};

}  // namespace jsc::network
