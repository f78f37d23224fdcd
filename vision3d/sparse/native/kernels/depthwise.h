// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution: one weight per offset and channel. Limited by memory, so a block of outputs stays in cache.
#pragma once

#include <algorithm>
#include <vector>

#include "conv.h"
#include "kernels/forward.h"
#include "kernels/vec.h"
#include "threads.h"

namespace vision3d {
namespace VISION3D_ISA {

/// The pairs of one block, row by row: row r reads inputs entry[ptr[r] .. ptr[r + 1]), each with its kernel offset.
struct BlockRows {
    struct Entry {
        int32_t in, offset;
    };
    int32_t ptr[kBlockRows + 1];
    std::vector<Entry> entry;

    /// Transposes the lists of a block by counting; offsets stay in order within a row.
    template <typename T>
    void gather(const std::vector<PairList> &lists, int64_t block, int64_t n_in, int64_t row0, int64_t rows) {
        int32_t next[kBlockRows] = {};
        int64_t total = 0;
        for (const PairList &list : lists) {
            if (!list.block) {
                for (int64_t r = 0; r < rows; ++r) ++next[r];
                total += rows;
                continue;
            }
            int64_t begin, count;
            block_range<T>(list, block, block + 1, n_in, row0, rows, begin, count);
            for (int64_t p = 0; p < count; ++p) ++next[list.out[begin + p] - row0];
            total += count;
        }
        if (static_cast<int64_t>(entry.size()) < total) entry.resize(static_cast<size_t>(total));
        ptr[0] = 0;
        for (int64_t r = 0; r < rows; ++r) {
            ptr[r + 1] = ptr[r] + next[r];
            next[r] = ptr[r];
        }
        for (size_t k = 0; k < lists.size(); ++k) {
            const PairList &list = lists[k];
            const int32_t offset = static_cast<int32_t>(k);
            if (!list.block) {
                for (int64_t r = 0; r < rows; ++r) entry[next[r]++] = {static_cast<int32_t>(row0 + r), offset};
                continue;
            }
            const int64_t begin = list.block[block], end = list.block[block + 1];
            for (int64_t p = begin; p < end; ++p) entry[next[list.out[p] - row0]++] = {list.in[p], offset};
        }
    }
};

/// NV vectors of channels of all rows of a block; the sums of a row stay in registers.
template <typename T, int NV>
VISION3D_INLINE void depthwise_rows(const BlockRows &pairs, int64_t rows, const T *x, const T *w, const T *bias, bool relu,
                                    T *out, int64_t ld) {
    using V = Vec<T>;
    const int32_t last = pairs.ptr[rows] - 1;
    for (int64_t r = 0; r < rows; ++r) {
        V sum[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) sum[v] = bias ? V::load(bias + v * V::width) : V::zero();
        for (int32_t p = pairs.ptr[r]; p < pairs.ptr[r + 1]; ++p) {
            const BlockRows::Entry e = pairs.entry[p];
            const T *from = x + static_cast<int64_t>(e.in) * ld, *weight = w + e.offset * ld;
            const T *later = x + static_cast<int64_t>(pairs.entry[std::min(p + 24, last)].in) * ld;
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v) {
                prefetch(later + v * V::width);
                sum[v].fma(V::load(from + v * V::width), V::load(weight + v * V::width));
            }
        }
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) (relu ? sum[v].max(V::zero()) : sum[v]).store(out + r * ld + v * V::width);
    }
}

template <typename T>
void depthwise(const ConvArgs<T> &a) {
    constexpr int W = Vec<T>::width;
    const int64_t channels = a.groups, blocks = (a.n_out + kBlockRows - 1) / kBlockRows;
    const int64_t tasks = (blocks + 15) / 16;
    parallel_for(tasks, a.threads, [&](int64_t task) {
        BlockRows pairs;
        for (int64_t block = task * 16; block < std::min(task * 16 + 16, blocks); ++block) {
            const int64_t row0 = block * kBlockRows, rows = std::min(a.n_out - row0, kBlockRows);
            pairs.template gather<T>(a.lists, block, a.n_in, row0, rows);
            T *out = a.out + row0 * channels;
            int64_t c = 0;
            const auto bias = [&] { return a.bias ? a.bias + c : nullptr; };
            for (; c + 4 * W <= channels; c += 4 * W)
                depthwise_rows<T, 4>(pairs, rows, a.feats + c, a.weight + c, bias(), a.relu, out + c, channels);
            for (; c + 2 * W <= channels; c += 2 * W)
                depthwise_rows<T, 2>(pairs, rows, a.feats + c, a.weight + c, bias(), a.relu, out + c, channels);
            for (; c + W <= channels; c += W)
                depthwise_rows<T, 1>(pairs, rows, a.feats + c, a.weight + c, bias(), a.relu, out + c, channels);
            for (; c < channels; ++c)
                for (int64_t r = 0; r < rows; ++r) {
                    T sum = a.bias ? a.bias[c] : T(0);
                    for (int32_t p = pairs.ptr[r]; p < pairs.ptr[r + 1]; ++p)
                        sum += a.feats[pairs.entry[p].in * channels + c] * a.weight[pairs.entry[p].offset * channels + c];
                    out[r * channels + c] = a.relu && sum < T(0) ? T(0) : sum;
                }
        }
    });
}

template <typename T>
void depthwise_gradient(const GradArgs<T> &a) {
    const int64_t channels = a.groups, volume = static_cast<int64_t>(a.lists.size());
    const int64_t blocks = (a.n_out + kBlockRows - 1) / kBlockRows;
    const int64_t chunks = std::max<int64_t>(1, std::min(kGradientChunks, blocks / 16));
    std::vector<T> partial(static_cast<size_t>(chunks * volume * channels), T(0));
    parallel_for(chunks, a.threads, [&](int64_t chunk) {
        const int64_t begin_block = blocks * chunk / chunks, end_block = blocks * (chunk + 1) / chunks;
        std::vector<T> sum(static_cast<size_t>(channels));
        for (int64_t block = begin_block; block < end_block; ++block) {
            const int64_t row0 = block * kBlockRows, rows = std::min(a.n_out - row0, kBlockRows);
            for (int64_t k = 0; k < volume; ++k) {
                const PairList &list = a.lists[k];
                int64_t begin = 0, count = rows;
                if (list.block) block_range<T>(list, block, block + 1, a.n_in, row0, rows, begin, count);
                T *to = partial.data() + (chunk * volume + k) * channels;
                for (int64_t p = 0; p < count; ++p) {
                    const int64_t i = list.block ? list.in[begin + p] : row0 + p;
                    const int64_t o = list.block ? list.out[begin + p] : row0 + p;
                    const T *x = a.feats + i * channels, *y = a.grad_out + o * channels;
                    for (int64_t c = 0; c < channels; ++c) to[c] += x[c] * y[c];
                }
            }
        }
    });
    for (int64_t i = 0; i < volume * channels; ++i) {
        a.grad_weight[i] = T(0);
        for (int64_t chunk = 0; chunk < chunks; ++chunk) a.grad_weight[i] += partial[chunk * volume * channels + i];
    }
}

}  // namespace VISION3D_ISA
}  // namespace vision3d
