// fingerprint: 64 bits that tell one state of a tensor from another.
//
//   h = fold over the blocks that are read of  (h xor word) * prime, lane by lane
//
// Layout: the bytes of a tensor, one after the other, any alignment. A block is FINGERPRINT_LANES
// words of 8 bytes, each folded into a lane of its own, since multiplications of one lane wait for
// one another. Up to FINGERPRINT_WHOLE bytes, or where the caller wants it, everything is read;
// otherwise FINGERPRINT_SAMPLES blocks of one word, spread evenly over the whole length by multiples
// of the golden ratio, so that no stride of a layout keeps step with them.
//
// A change of the whole tensor is seen: a word that changes changes its lane, because a product with
// an odd number can be undone. A change of single elements that are not sampled is not seen.
//
// Cost: 0.1 to 0.3 us for samples in a cache, microseconds where they come from memory; read whole,
// what reading it costs.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace jsc {

constexpr size_t FINGERPRINT_WHOLE = 2048;  // bytes
constexpr size_t FINGERPRINT_SAMPLES = 64;
constexpr int FINGERPRINT_LANES = 8;

struct Fingerprint {
    uint64_t lane[FINGERPRINT_LANES];

    void fold(int i, uint64_t word) {
        lane[i] = (lane[i] ^ word) * 0x9fb21c651e98df25u;
        lane[i] ^= lane[i] >> 32;
    }
    void fold(int i, const char *data, size_t bytes = 8) {
        uint64_t word = 0;
        std::memcpy(&word, data, bytes);
        fold(i, word);
    }
};

inline uint64_t fingerprint(const char *data, size_t bytes, bool whole) {
    Fingerprint f = {};
    const size_t words = bytes / 8;
    if (whole || bytes <= FINGERPRINT_WHOLE) {
        size_t w = 0;
        for (; w + FINGERPRINT_LANES <= words; w += FINGERPRINT_LANES)
            for (int i = 0; i < FINGERPRINT_LANES; i++) f.fold(i, data + 8 * (w + i), 8);
        for (; w < words; w++) f.fold((int)(w % FINGERPRINT_LANES), data + 8 * w, 8);
    } else {
        for (size_t s = 0; s < FINGERPRINT_SAMPLES; s++) {
            const uint64_t fraction = s * 0x9e3779b97f4a7c15u;  // of 2^64
            const size_t w = (size_t)(((unsigned __int128)fraction * words) >> 64);
            f.fold((int)(s % FINGERPRINT_LANES), data + 8 * w, 8);
        }
    }
    if (bytes % 8) f.fold(0, data + 8 * words, bytes % 8);
    uint64_t h = bytes;
    for (int i = 0; i < FINGERPRINT_LANES; i++) {
        Fingerprint all = {{h}};
        all.fold(0, f.lane[i]);
        h = all.lane[0];
    }
    return h;
}

}  // namespace jsc
