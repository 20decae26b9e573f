// The CPC sweep with one cause of loss after another taken away: the measuring side of cpc_sweep.py.
#include "cpc/sweep.h"

#if defined(__linux__)
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

using namespace jsc;

// A convolution of one image; the fields are those of CpcTask, weights and tile as it wants them.
struct Layer {
    const float *x;
    const uint64_t *mask;
    const float *weight;
    float *tile, *out;
    int64_t C, H, W, K, Kh, Kw, Sh, Sw, Ph, Pw, Oh, Ow;
    int64_t V, lanes, band_rows;  // lanes: filters to a block
};

enum Where { AS_IT_IS, ACTIVATIONS_IN_L1, ALL_IN_L1 };

// CpcBand (cpc/sweep.h) with one row of partial sums for all rows and one row of weights for all channels.
template <int V, int Taps, int S>
struct BandInL1 {
    template <class I>
    JSC_INLINE void run(const CpcTask<float> *task) {
        using V_ = Vec<I, float>;
        constexpr int L = lanes<I, float>, margin = cpc_margin(Taps ? Taps : 1, S);
        constexpr int parts = Taps * V * L * (int)sizeof(float) * CPC_SET > CPC_WEIGHT_BYTES ? 2 : 1;
        const CpcTask<float> t = *task;
        const ptrdiff_t VL = V * L, row_step = (t.Ow + 2 * margin) * VL, sets = (t.C + CPC_SET - 1) / CPC_SET;
        V_ zero = {};
        for (ptrdiff_t i = 0; i < t.rows * row_step; i += L) store(t.tile + i, zero);
        for (ptrdiff_t s = 0; s < sets; s++)
            for (ptrdiff_t i = 0; i < t.Kh; i++)
                for (int part = 0; part < parts; part++) {
                    constexpr int wide = CPC_SET / parts;
                    const uint64_t channels = ~0ull >> (CPC_SET - wide) << (wide * part);
                    for (ptrdiff_t r = 0; r < t.rows; r++) {
                        ptrdiff_t y = (t.row0 + r) * t.Sh + i * t.Dh - t.Ph;
                        if (y < 0 || y >= t.H) continue;
                        const float *x = t.x + y * t.row_step + s * t.set_step;
                        const uint64_t *mask = t.mask + s * t.H * t.W + y * t.W;
                        float *out = t.tile + margin * VL;
                        if constexpr (Taps > 0) {
                            cpc_sweep<I, float, V, Taps, S>(x, mask, t.pixel_step, t.W, t.Ow, t.Pw, t.weight,
                                                            0, channels, out);
                        } else {
                            for (ptrdiff_t j = t.Kw - 1; j >= 0; j--)
                                cpc_points<I, float, V>(x, mask, t.pixel_step, t.W, t.Ow, t.Sw,
                                                        j * t.Dw - t.Pw, t.weight, 0, out);
                        }
                    }
                }
        for (ptrdiff_t r = 0; r < t.rows; r++)
            for (ptrdiff_t o = 0; o < t.Ow; o++) {
                const float *from = t.tile + r * row_step + (margin + o) * VL;
                float *to = t.out + r * t.out_row + o * t.out_pitch;
                ptrdiff_t k = 0;
                for (; k + L <= t.filters; k += L) store(to + k, load<V_>(from + k));
                for (; k < t.filters; k++) to[k] = from[k];
            }
    }
};

template <int V, int S>
void band_in_l1(int isa, const CpcTask<float> *task) {
    switch (cpc_taps(task->Kw, task->Sw, task->Dw)) {
    case 2: return dispatch<BandInL1<V, 2, S>>(isa, task);
    case 3: return dispatch<BandInL1<V, 3, S>>(isa, task);
    case 5: return dispatch<BandInL1<V, 5, S>>(isa, task);
    case 7: return dispatch<BandInL1<V, 7, S>>(isa, task);
    default: return dispatch<BandInL1<V, 0, 1>>(isa, task);
    }
}

template <int V>
void band_in_l1(int isa, const CpcTask<float> *task) {
    return task->Sw == 2 ? band_in_l1<V, 2>(isa, task) : band_in_l1<V, 1>(isa, task);
}

void run_band(const Layer &l, int isa, int where, int64_t block, int64_t row0, int64_t rows) {
    const int64_t sets = (l.C + CPC_SET - 1) / CPC_SET;
    CpcTask<float> t = {};
    t.x = l.x, t.mask = l.mask, t.tile = l.tile;
    t.weight = l.weight + block * sets * l.Kh * CPC_SET * l.Kw * l.lanes;
    t.out = l.out + row0 * l.Ow * l.K + block * l.lanes;
    t.pixel_step = l.C, t.row_step = l.W * l.C, t.set_step = CPC_SET;
    if (where != AS_IT_IS) t.pixel_step = t.row_step = t.set_step = 0;
    t.out_pitch = l.K, t.out_row = l.Ow * l.K;
    t.C = l.C, t.H = l.H, t.W = l.W, t.Kh = l.Kh, t.Kw = l.Kw, t.Ow = l.Ow;
    t.Sh = l.Sh, t.Sw = l.Sw, t.Ph = l.Ph, t.Pw = l.Pw, t.Dh = t.Dw = 1;
    t.row0 = row0, t.rows = rows;
    t.filters = l.K - block * l.lanes < l.lanes ? l.K - block * l.lanes : l.lanes;
    if (where != ALL_IN_L1) return cpc_band(isa, (int)l.V, &t);
    switch (l.V) {
    case 1: return band_in_l1<1>(isa, &t);
    case 2: return band_in_l1<2>(isa, &t);
    case 4: return band_in_l1<4>(isa, &t);
    default: return dispatch<BandInL1<8, 0, 1>>(isa, &t);
    }
}

// Multiply-adds that wait for nothing but the units: 12 sums, all operands in registers.
struct Products {
    template <class I>
    JSC_INLINE void run(int64_t n, float *sink) {
        using V_ = Vec<I, float>;
        V_ a[12], x = load<V_>(sink), y = load<V_>(sink + 16), zero = {};
#pragma GCC unroll 12
        for (int k = 0; k < 12; k++) a[k] = zero;
        for (int64_t i = 0; i < n; i += 12) {
#pragma GCC unroll 12
            for (int k = 0; k < 12; k++) {
                keep_in_register(x);  // or the product would be formed once for all
                a[k] += x * y;
                keep_in_register(a[k]);
            }
        }
#pragma GCC unroll 12
        for (int k = 0; k < 12; k++) store(sink, load<V_>(sink) + a[k]);
    }
};

}  // namespace

extern "C" {

// All bands and filter blocks of each of `count` layers, on the calling thread.
void sweep(const Layer *const *layers, int count, int isa, int where) {
    for (int n = 0; n < count; n++) {
        const Layer &l = *layers[n];
        for (int64_t row = 0; row < l.Oh; row += l.band_rows)
            for (int64_t block = 0; block * l.lanes < l.K; block++)
                run_band(l, isa, where, block, row, l.Oh - row < l.band_rows ? l.Oh - row : l.band_rows);
    }
}

// Instructions of one output row of the first filter block, counted by single steps of a child
// process; -1 where that is not allowed. The child's own (some hundred) are those of no row.
int64_t instructions(const Layer *l, int isa, int64_t row) {
#if defined(__linux__)
    int64_t count[2] = {0, 0};
    for (int rows = 0; rows < 2; rows++) {
        pid_t child = fork();
        if (child < 0) return -1;
        if (child == 0) {
            ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
            raise(SIGSTOP);
            run_band(*l, isa, AS_IT_IS, 0, row, rows);
            _exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        while (WIFSTOPPED(status)) {
            if (ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr)) {
                kill(child, SIGKILL);
                waitpid(child, &status, 0);
                return -1;
            }
            waitpid(child, &status, 0);
            if (WIFSTOPPED(status) && WSTOPSIG(status) != SIGTRAP) {  // it fails, and would for ever
                kill(child, SIGKILL);
                waitpid(child, &status, 0);
                return -1;
            }
            count[rows]++;
        }
    }
    return count[1] - count[0];
#else
    return -1;
#endif
}

void products(int isa, int64_t n, float *sink) { dispatch<Products>(isa, n, sink); }

// Three cycles each, and each waits for the one before: 64-bit multiplications.
uint64_t chain(int64_t n, uint64_t x) {
    for (int64_t i = 0; i < n; i++) {
        x *= x;
#if defined(__x86_64__)
        asm volatile("" : "+r"(x));
#endif
    }
    return x;
}
}
