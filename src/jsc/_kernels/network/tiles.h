// The convolution on AMX tiles (amx/product.h) as an instruction: dense, float32 from sums of bfloat16.
//
//   out[n, y, x, k] = act(shift[k] + sum(c, u, s) w[k, c, u, s] in[n, S y + D u - P, S x + D s - P, c]
//                         + residual[n, y, x, k])          act: nothing or ReLU
//
// Rounds: one task that clears the flag `bad`; those of the convolution (amx/convolution.h); last a direct
// convolution, which does nothing unless a number was met that three bfloat16 cannot sum up to (NaN, inf, or
// so large that it rounds to inf): then it does all again, where a map is of bfloat16 that of direct_bf16.h.
// Rows and images of all maps follow each other.
//
// Memory that the threads share lies in the arena, each one's own in its scratch. Numerics: those of
// amx/product.h.
#pragma once
#include <memory>
#include <vector>

#include "amx/convolution.h"
#include "network/direct_bf16.h"

namespace jsc::network {

struct TilesFields {
    AmxFields amx;
    int64_t common;  // where in the arena, in floats
    ConvolutionFields direct;  // the same convolution; where a map is of bfloat16, as DirectBf16 has it
};

// Tasks are cut as for so many threads.
constexpr int TILES_TEAM = 4;

class Tiles final : public Instruction {
  public:
    Tiles(const TilesFields &fields, int64_t lanes) : f(fields), amx(fields.amx) {
        if (f.direct.x.bf16 || f.direct.out.bf16)
            direct = std::make_unique<DirectBf16>(DirectBf16Fields{f.direct}, lanes);
        else direct = std::make_unique<Convolution>(f.direct, lanes);
        steps.resize(std::max<ptrdiff_t>(1, amx.steps()));
        amx.place_steps(steps.data());
        amx.offset = steps.data();
        amx.share_out(TILES_TEAM);
    }
    int64_t common_bytes() const { return amx.common_bytes(); }
    int64_t rounds() const override { return amx.rounds() + 2; }
    int64_t tasks(int64_t round) const override {
        return round == 0 ? 1 : round <= amx.rounds() ? amx.tasks(round - 1) : direct->tasks(0);
    }
    int64_t scratch_bytes() const override {
        return std::max<int64_t>(amx.own_bytes(), direct->scratch_bytes());
    }
    void run(int isa, int64_t round, int64_t task, const Call &call) const override {
        const AmxCall c = of(call);
        if (round == 0) return amx.begin(c);
        if (round > amx.rounds()) {
            if (!amx.end(c)) direct->run(isa, 0, task, call);
            return;
        }
        amx_begin();
        amx.run(round - 1, task, 0, c);
        amx_end();
    }

  private:
    TilesFields f;
    AmxConvolution amx;
    std::unique_ptr<Instruction> direct;
    std::vector<ptrdiff_t> steps;

    static char *bytes_at(const Map &map, const Call &call) {
        return map.bf16 ? (char *)at<uint16_t>(map, call) : (char *)at(map, call);
    }
    AmxCall of(const Call &call) const {
        const Epilogue &e = f.direct.epilogue;
        AmxCall c;
        c.x = bytes_at(f.direct.x, call), c.out = bytes_at(f.direct.out, call);
        c.residual = e.has_residual ? bytes_at(e.residual, call) : nullptr;
        c.common = (char *)((float *)call.regions[0] + f.common), c.own = call.scratch;
        return c;
    }
};

}  // namespace jsc::network
