// SPDX-License-Identifier: Apache-2.0
#include "radix.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "threads.h"

namespace vision3d {
namespace {

constexpr int kDigitBits = 11;          // 2048 buckets: their heads stay in the first-level cache
constexpr int64_t kSmall = 512;         // below it, histograms cost more than comparisons
constexpr int64_t kPieceRows = 1 << 14;  // rows that pay for waking a thread

inline uint64_t key_of(uint64_t word) { return word; }
inline uint64_t key_of(const KeyRow &pair) { return pair.key; }

template <typename E>
void scatter(const E *from, int64_t n, E *to, int64_t *head, int shift, uint64_t mask) {
    for (int64_t i = 0; i < n; ++i) to[head[(key_of(from[i]) >> shift) & mask]++] = from[i];
}

template <typename E>
void sort_bits(Buffer<E> &items, int low, int high, int threads) {
    const int64_t n = items.size();
    if (n < 2 || high <= low) return;
    if (n <= kSmall) {
        const uint64_t mask = high - low >= 64 ? ~uint64_t(0) : (uint64_t(1) << (high - low)) - 1;
        std::stable_sort(items.data(), items.data() + n, [&](const E &a, const E &b) {
            return ((key_of(a) >> low) & mask) < ((key_of(b) >> low) & mask);
        });
        return;
    }
    const int passes = (high - low + kDigitBits - 1) / kDigitBits;
    const int64_t pieces = std::max<int64_t>(1, std::min<int64_t>(threads, n / kPieceRows));
    const int64_t size = (n + pieces - 1) / pieces;
    Buffer<E> spare(n);
    std::vector<int64_t> heads;
    for (int pass = 0, shift = low; pass < passes; ++pass) {
        const int bits = (high - shift + passes - pass - 1) / (passes - pass);
        const int64_t buckets = int64_t(1) << bits;
        const uint64_t mask = static_cast<uint64_t>(buckets) - 1;
        heads.assign(static_cast<size_t>(pieces * buckets), 0);
        parallel_for(pieces, threads, [&](int64_t piece) {
            int64_t *count = heads.data() + piece * buckets;
            const int64_t end = std::min(n, (piece + 1) * size);
            for (int64_t i = piece * size; i < end; ++i) ++count[(key_of(items[i]) >> shift) & mask];
        });
        int64_t total = 0;
        for (int64_t bucket = 0; bucket < buckets; ++bucket)
            for (int64_t piece = 0; piece < pieces; ++piece) {
                int64_t &head = heads[static_cast<size_t>(piece * buckets + bucket)];
                total += std::exchange(head, total);
            }
        parallel_for(pieces, threads, [&](int64_t piece) {
            const int64_t begin = std::min(n, piece * size), end = std::min(n, begin + size);
            scatter(items.data() + begin, end - begin, spare.data(), heads.data() + piece * buckets, shift, mask);
        });
        std::swap(items, spare);
        shift += bits;
    }
}

}  // namespace

void radix_sort(Buffer<uint64_t> &words, int low, int high, int threads) { sort_bits(words, low, high, threads); }
void radix_sort(Buffer<KeyRow> &pairs, int high, int threads) { sort_bits(pairs, 0, high, threads); }

}  // namespace vision3d
