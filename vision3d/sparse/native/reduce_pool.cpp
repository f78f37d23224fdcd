// SPDX-License-Identifier: Apache-2.0
// Output-stationary pooling: a block of 64 output rows stays in cache while every kernel offset adds to it.
#include <algorithm>
#include <stdexcept>

#include "reduce.h"
#include "threads.h"

namespace vision3d {
namespace {

constexpr int64_t kBlocksPerTask = 4;
constexpr int64_t kPrefetchPairs = 6;

/// Calls visit(input row, output row) for the pairs of one output block, offset after offset.
template <typename T, typename Visit>
void for_pairs(const PoolArgs<T> &a, int64_t block, const Visit &visit) {
    const int64_t first = block * kBlockRows, last = std::min(first + kBlockRows, a.n_out);
    for (const PairList &list : a.lists) {
        if (!list.block) {
            for (int64_t row = first; row < last; ++row) visit(row, row);
            continue;
        }
        const int64_t begin = list.block[block], count = list.block[block + 1] - begin;
        const int32_t *in = list.in + begin, *out = list.out + begin;
        if (!rows_in_range(in, count, 0, static_cast<uint32_t>(a.n_in)) ||
            !rows_in_range(out, count, static_cast<uint32_t>(first), static_cast<uint32_t>(last - first)))
            throw std::out_of_range("kernel map: a row number is out of range");
        for (int64_t p = 0; p < count; ++p) {
            if (p + kPrefetchPairs < count) __builtin_prefetch(a.feats + in[p + kPrefetchPairs] * a.channels);
            visit(static_cast<int64_t>(in[p]), static_cast<int64_t>(out[p]));
        }
    }
}

template <typename T, bool Keep>
void max_block(const PoolArgs<T> &a, int64_t block) {
    const int64_t first = block * kBlockRows, rows = std::min(kBlockRows, a.n_out - first), channels = a.channels;
    bool seen[kBlockRows] = {};
    for_pairs(a, block, [&](int64_t in, int64_t out) {
        const T *x = a.feats + in * channels;
        T *best = a.out + out * channels;
        int32_t *source = Keep ? a.source + out * channels : nullptr;
        if (seen[out - first]) return take_larger<T, Keep>(channels, x, static_cast<int32_t>(in), best, source);
        seen[out - first] = true;
        std::copy_n(x, channels, best);
        if constexpr (Keep) std::fill_n(source, channels, static_cast<int32_t>(in));
    });
    for (int64_t r = 0; r < rows; ++r) {
        if (seen[r]) continue;
        std::fill_n(a.out + (first + r) * channels, channels, T(0));
        if constexpr (Keep) std::fill_n(a.source + (first + r) * channels, channels, -1);
    }
}

template <typename T>
void add(int64_t channels, const T *__restrict__ x, T *__restrict__ sum) {
    for (int64_t c = 0; c < channels; ++c) sum[c] += x[c];
}

template <typename T>
void sum_block(const PoolArgs<T> &a, int64_t block) {
    const int64_t first = block * kBlockRows, rows = std::min(kBlockRows, a.n_out - first), channels = a.channels;
    std::fill_n(a.out + first * channels, rows * channels, T(0));
    for_pairs(a, block,
              [&](int64_t in, int64_t out) { add(channels, a.feats + in * channels, a.out + out * channels); });
}

template <typename T, typename Block>
void over_blocks(const PoolArgs<T> &a, const Block &body) {
    const int64_t blocks = (a.n_out + kBlockRows - 1) / kBlockRows;
    parallel_for((blocks + kBlocksPerTask - 1) / kBlocksPerTask, a.threads, [&](int64_t task) {
        const int64_t end = std::min(blocks, (task + 1) * kBlocksPerTask);
        for (int64_t block = task * kBlocksPerTask; block < end; ++block) body(block);
    });
}

}  // namespace

template <typename T>
void pool_max(const PoolArgs<T> &a) {
    if (a.source)
        over_blocks(a, [&](int64_t block) { max_block<T, true>(a, block); });
    else
        over_blocks(a, [&](int64_t block) { max_block<T, false>(a, block); });
}

template <typename T>
void pool_sum(const PoolArgs<T> &a) {
    over_blocks(a, [&](int64_t block) { sum_block(a, block); });
}

template void pool_max(const PoolArgs<float> &);
template void pool_max(const PoolArgs<double> &);
template void pool_sum(const PoolArgs<float> &);
template void pool_sum(const PoolArgs<double> &);

}  // namespace vision3d
