// The walk: a team of threads goes through stages of independent instructions.
//
// A stage is one index space over the tasks of all its instructions (each in one of its rounds). Each thread
// has an equal share of neighbouring tasks, and helps the others when it is done with its own: so a thread
// mostly reads the rows that it wrote itself, which are still in its cache. A barrier of our own stands
// between stages, because it costs a tenth of entering and leaving a parallel region. It spins for some
// microseconds and then lets others run: cores may be shared with other processes.
#pragma once
#include <atomic>
#include <memory>
#include <vector>

#include "network/instruction.h"
#if defined(__linux__)
#include <sched.h>
#endif

namespace jsc::network {

struct Part {
    const Instruction *instruction;
    int64_t round, first;  // its tasks are first, first + 1, ... of the stage
};
struct Stage {
    std::vector<Part> parts;
    int64_t tasks = 0;
};

// What the threads of one call share: each number has a cache line of its own.
struct alignas(64) Line {
    std::atomic<int64_t> value{0};
};
struct Meeting {
    Line arrived, generation;
    std::unique_ptr<Line[]> taken;  // tasks of each thread's share that somebody has taken
    explicit Meeting(int64_t threads) : taken(new Line[threads]) {}
};

inline void pause() {
#if defined(__x86_64__)
    asm volatile("pause");
#endif
}
// Processors that reorder memory (ARM) need no more than what stands here: who arrives last has acquired
// what the others wrote before they arrived, and its release of the generation hands on all of that, and
// the shares that it has emptied, to whoever sees the new generation. Who takes which task needs no order,
// since within a stage nobody reads what another task of it writes.
inline void wait_for_all(Meeting &m, int64_t threads) {
    const int64_t generation = m.generation.value.load(std::memory_order_relaxed);
    if (m.arrived.value.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
        m.arrived.value.store(0, std::memory_order_relaxed);
        for (int64_t t = 0; t < threads; t++) m.taken[t].value.store(0, std::memory_order_relaxed);
        m.generation.value.store(generation + 1, std::memory_order_release);
        return;
    }
    for (int spins = 0; m.generation.value.load(std::memory_order_acquire) == generation;) {
        if (++spins < 300) pause();
#if defined(__linux__)
        else sched_yield();
#endif
    }
}

class Schedule {
  public:
    // Instructions are added in the order of their stages; `new_stage` closes what came before it.
    void new_stage() { stages.emplace_back(); }
    void add(const Instruction *instruction, int64_t round) {
        Stage &stage = stages.back();
        const int64_t tasks = instruction->tasks(round);
        if (tasks > 0) stage.parts.push_back({instruction, round, stage.tasks});
        stage.tasks += std::max<int64_t>(0, tasks);
        scratch = std::max(scratch, instruction->scratch_bytes());
    }
    size_t size() const { return stages.size(); }
    int64_t scratch_bytes() const { return ceil_div(scratch, 64) * 64; }

    void walk(int isa, int64_t thread, int64_t threads, char *const *regions, char *scratch_of_all,
              Meeting &m) const {
        const Call call{regions, scratch_of_all + thread * scratch_bytes()};
        for (size_t s = 0; s < stages.size(); s++) {
            const Stage &stage = stages[s];
            if (threads == 1) {
                for (const Part &p : stage.parts)
                    for (int64_t task = 0, n = p.instruction->tasks(p.round); task < n; task++)
                        p.instruction->run(isa, p.round, task, call);
                continue;
            }
            for (int64_t i = 0; i < threads; i++) {
                const int64_t whose = (thread + i) % threads;
                const int64_t first = whose * stage.tasks / threads;
                const int64_t end = (whose + 1) * stage.tasks / threads;
                for (size_t part = 0;;) {
                    const int64_t index =
                        first + m.taken[whose].value.fetch_add(1, std::memory_order_relaxed);
                    if (index >= end) break;
                    while (part + 1 < stage.parts.size() && stage.parts[part + 1].first <= index) part++;
                    const Part &p = stage.parts[part];
                    p.instruction->run(isa, p.round, index - p.first, call);
                }
            }
            if (s + 1 < stages.size()) wait_for_all(m, threads);
        }
    }

  private:
    std::vector<Stage> stages;
    int64_t scratch = 0;
};

}  // namespace jsc::network
