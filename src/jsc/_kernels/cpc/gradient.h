// Gradients of a convolution of stride 1, or of a phase of one with a stride, as rounds of tasks
// (nonzeros.h).
//
//   rounds   weights in the layout of nonzeros.h, where the gradient of the input is wanted; the non-zeros of
//            S; the ranges of the gradient of the weights added in order, where it is wanted
//   scratch  a line of each thread that says whether it met a number that is not finite; packed weights; the
//            gradient of the weights of each range; what each thread works in
//
// A task is up to 16 channels of S and, over the non-zeros, a range of units that the shape alone decides.
#pragma once
#include "cpc/gradient_weight.h"
#include "cpc/nonzeros.h"

namespace jsc {

// What follows from shapes. Sizes are numbers of elements; the names are those of GradTask.
struct GradFields {
    ptrdiff_t N, Cs, H, W, Cd, Hd, Wd, Kh, Kw, top, left;
    ptrdiff_t image_step, row_step;  // of S
    ptrdiff_t turned;  // whether kernels are turned by 180 degrees
    ptrdiff_t rows, group, units, ranges;  // rows to a unit, units to a group and to a step, ranges of units
    ptrdiff_t vectors, block;  // vectors and channels of D to a block
    size_t S_offset, D_offset, pairs;  // addresses
};

// Steps of a tensor of weights from one channel of S, of D, row, column to the next.
struct GradSteps {
    ptrdiff_t s, d, i, j;
};

template <class T>
struct GradCall {
    const T *S, *D, *weight;  // weight: null where input_grad is
    T *input_grad, *weight_grad;  // or null
    GradSteps weight_steps, weight_grad_steps;
    char *scratch;  // aligned to 64
};

template <class T>
struct GradConvolution : GradFields {
    bool input_wanted, weight_wanted;
    ptrdiff_t threads;

    GradConvolution(const GradFields &fields, bool input_wanted, bool weight_wanted, ptrdiff_t threads)
        : GradFields(fields), input_wanted(input_wanted), weight_wanted(weight_wanted), threads(threads) {}

    enum Round { PACK, NONZEROS, SUM };
    Round kind(ptrdiff_t round) const { return (Round)(round + !input_wanted); }
    ptrdiff_t rounds() const { return 1 + input_wanted + weight_wanted; }
    ptrdiff_t tasks(ptrdiff_t round) const { return kind(round) == NONZEROS ? ranges * parts() : parts(); }
    ptrdiff_t scratch_bytes() const { return thread_place() + threads * thread_bytes(); }

    // Once before the rounds, by one thread.
    void begin(const GradCall<T> &call) const { memset(call.scratch, 0, 64 * threads); }
    void run(int isa, ptrdiff_t round, ptrdiff_t index, int thread, const GradCall<T> &call) const {
        bool finite = true;
        switch (kind(round)) {
        case PACK: finite = pack(index, call); break;
        case NONZEROS: finite = nonzeros(isa, index, thread, call); break;
        default: sum(index, call);
        }
        if (!finite) call.scratch[64 * thread] = 1;
    }
    // After the rounds: whether S, D and weights are finite; if not, neither gradient is to be used.
    bool end(const GradCall<T> &call) const {
        for (ptrdiff_t t = 0; t < threads; t++)
            if (call.scratch[64 * t]) return false;
        return true;
    }

  private:
    static ptrdiff_t lines(ptrdiff_t bytes) { return (bytes + 63) / 64 * 64; }
    static ptrdiff_t least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

    ptrdiff_t parts() const { return (Cs + GRAD_CHANNELS - 1) / GRAD_CHANNELS; }
    ptrdiff_t bands() const { return (H + rows - 1) / rows; }
    ptrdiff_t channel_size() const {
        return (Cd + block - 1) / block * Kh * Kw * block;
    }  // of packed weights
    ptrdiff_t size() const { return Cs * channel_size(); }

    ptrdiff_t packed_place() const { return 64 * threads; }
    ptrdiff_t ranges_place() const { return packed_place() + (input_wanted ? lines(size() * sizeof(T)) : 0); }
    ptrdiff_t thread_place() const {
        return ranges_place() + (weight_wanted ? lines(ranges * size() * sizeof(T)) : 0);
    }
    ptrdiff_t block_bytes() const {
        return lines(group * (rows + Kh - 1) * (W + Kw - 1) * block * sizeof(T));
    }
    ptrdiff_t words() const {
        return (group * rows * W + 63) / 64 * ((units + group - 1) / group);
    }  // of a channel
    ptrdiff_t plane_bytes() const { return lines(GRAD_CHANNELS * (words() + 1) * 64 * sizeof(T)); }
    ptrdiff_t thread_bytes() const {
        return block_bytes() + GRAD_SUMS_BYTES + 2 * plane_bytes() + lines(GRAD_CHANNELS * words() * 8);
    }

    GradKernel kernel(const GradSteps &steps) const {
        return {Cd, Kh, Kw, block, turned, steps.s, steps.d, steps.i, steps.j};
    }
    bool pack(ptrdiff_t part, const GradCall<T> &call) const {
        const ptrdiff_t first = part * GRAD_CHANNELS;
        const GradKernel k = kernel(call.weight_steps);
        return grad_pack_weight(&k, least(GRAD_CHANNELS, Cs - first), call.weight + first * k.s_step,
                                (T *)(call.scratch + packed_place()) + first * channel_size());
    }
    void sum(ptrdiff_t part, const GradCall<T> &call) const {
        const ptrdiff_t first = part * GRAD_CHANNELS;
        const GradKernel k = kernel(call.weight_grad_steps);
        grad_sum_weight(&k, least(GRAD_CHANNELS, Cs - first),
                        (const T *)(call.scratch + ranges_place()) + first * channel_size(), ranges, size(),
                        call.weight_grad + first * k.s_step);
    }
    bool nonzeros(int isa, ptrdiff_t index, int thread, const GradCall<T> &call) const {
        const ptrdiff_t first = index / ranges * GRAD_CHANNELS, range = index % ranges, total = N * bands();
        GradTask<T> t;
        t.channels = least(GRAD_CHANNELS, Cs - first);
        t.S = call.S + first, t.D = call.D;
        t.weight =
            input_wanted ? (const T *)(call.scratch + packed_place()) + first * channel_size() : nullptr;
        t.input_grad = input_wanted ? call.input_grad + first : nullptr;
        t.weight_grad = nullptr;
        if (weight_wanted) {
            t.weight_grad = (T *)(call.scratch + ranges_place()) + (range * Cs + first) * channel_size();
            memset(t.weight_grad, 0, t.channels * channel_size() * sizeof(T));
        }
        t.S_offset = (const int64_t *)S_offset, t.D_offset = (const int32_t *)D_offset,
        t.pairs = (const uint64_t *)pairs;
        char *own = call.scratch + thread_place() + thread * thread_bytes();
        t.block = (T *)own;
        t.sums = (T *)(own += block_bytes());
        t.planes = (T *)(own += GRAD_SUMS_BYTES);
        t.input_grad_planes = (T *)(own += plane_bytes());
        t.mask = (uint64_t *)(own + plane_bytes());
        t.image_step = image_step, t.row_step = row_step;
        t.H = H, t.W = W, t.Hd = Hd, t.Wd = Wd, t.Cd = Cd, t.Kh = Kh, t.Kw = Kw, t.top = top, t.left = left;
        t.rows = rows, t.bands = bands(), t.group = group;
        const ptrdiff_t steps = (total + units - 1) / units;
        int finite = 1;
        for (ptrdiff_t step = range * steps / ranges; step < (range + 1) * steps / ranges; step++) {
            t.unit0 = step * units;
            t.units = least(units, total - t.unit0);
            grad_range(isa, (int)vectors, &t, &finite);
        }
        return finite;
    }
};

}  // namespace jsc
