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

/// out[o] += x[i] * w for all pairs of one offset, NV vectors of channels; the weights stay in registers.
/// First: out[o] = bias + x[i] * w instead, rows counting from the start of the block.
template <typename T, int NV, bool First>
VISION3D_INLINE void depthwise_pairs(int64_t count, const T *x, const int32_t *in, const T *w, const T *bias, T *out,
                                     const int32_t *o, int64_t ld) {
    using V = Vec<T>;
    constexpr int64_t kAhead = 16;
    V weight[NV], start[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
        weight[v] = V::load(w + v * V::width);
        if (First) start[v] = bias ? V::load(bias + v * V::width) : V::zero();
    }
    for (int64_t p = 0; p < count; ++p) {
        const T *from = x + (First ? p : static_cast<int64_t>(in[p])) * ld;
        T *to = out + (First ? p : static_cast<int64_t>(o[p])) * ld;
        if (!First && p + kAhead < count) {
            const char *later = reinterpret_cast<const char *>(x + static_cast<int64_t>(in[p + kAhead]) * ld);
#pragma GCC unroll 4
            for (size_t byte = 0; byte < NV * V::width * sizeof(T); byte += 64) prefetch(later + byte);
        }
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
            V sum = First ? start[v] : V::load(to + v * V::width);
            sum.fma(V::load(from + v * V::width), weight[v]);
            sum.store(to + v * V::width);
        }
    }
}

template <typename T>
struct DepthwiseBlock {
    int64_t row0, rows;
    std::vector<const int32_t *> in, out;  // per offset
    std::vector<int64_t> count;
};

/// All offsets of one block for NV vectors of channels from c on.
template <typename T, int NV>
void depthwise_columns(const ConvArgs<T> &a, const DepthwiseBlock<T> &block, int64_t c) {
    using V = Vec<T>;
    const int64_t ld = a.groups, volume = static_cast<int64_t>(a.lists.size());
    const T *x = a.feats + c, *bias = a.bias ? a.bias + c : nullptr;
    T *own = a.out + block.row0 * ld + c;
    int64_t identity = -1;
    for (int64_t k = 0; k < volume; ++k)
        if (!a.lists[k].block) identity = k;
    if (identity >= 0)
        depthwise_pairs<T, NV, true>(block.rows, x + block.row0 * ld, nullptr, a.weight + identity * ld + c, bias, own,
                                     nullptr, ld);
    else
        for (int64_t r = 0; r < block.rows; ++r)
            for (int v = 0; v < NV; ++v)
                (bias ? V::load(bias + v * V::width) : V::zero()).store(own + r * ld + v * V::width);
    for (int64_t k = 0; k < volume; ++k)
        if (k != identity)
            depthwise_pairs<T, NV, false>(block.count[k], x, block.in[k], a.weight + k * ld + c, nullptr, a.out + c,
                                          block.out[k], ld);
    if (a.relu)
        for (int64_t r = 0; r < block.rows; ++r)
            for (int v = 0; v < NV; ++v) {
                T *to = own + r * ld + v * V::width;
                V::load(to).max(V::zero()).store(to);
            }
}

/// One channel of one block, for channels that fill no vector.
template <typename T>
void depthwise_channel(const ConvArgs<T> &a, const DepthwiseBlock<T> &block, int64_t c) {
    const int64_t ld = a.groups;
    for (int64_t r = block.row0; r < block.row0 + block.rows; ++r) a.out[r * ld + c] = a.bias ? a.bias[c] : T(0);
    for (size_t k = 0; k < a.lists.size(); ++k) {
        const T w = a.weight[static_cast<int64_t>(k) * ld + c];
        if (!a.lists[k].block)
            for (int64_t r = block.row0; r < block.row0 + block.rows; ++r) a.out[r * ld + c] += a.feats[r * ld + c] * w;
        else
            for (int64_t p = 0; p < block.count[k]; ++p)
                a.out[block.out[k][p] * ld + c] += a.feats[block.in[k][p] * ld + c] * w;
    }
    if (a.relu)
        for (int64_t r = block.row0; r < block.row0 + block.rows; ++r) a.out[r * ld + c] = std::max(a.out[r * ld + c], T(0));
}

template <typename T>
void depthwise(const ConvArgs<T> &a) {
    constexpr int W = Vec<T>::width;
    const int64_t channels = a.groups, blocks = (a.n_out + kBlockRows - 1) / kBlockRows;
    // Long lists amortise their start; the columns in work of a step's output rows should stay in the first-level cache.
    const int64_t row_bytes = std::min<int64_t>(channels, 4 * W) * static_cast<int64_t>(sizeof(T));
    const int64_t step = std::min<int64_t>(8, std::max<int64_t>(1, 24576 / (row_bytes * kBlockRows)));
    const int64_t tasks = (blocks + 15) / 16;
    const size_t volume = a.lists.size();
    parallel_for(tasks, a.threads, [&](int64_t task) {
        DepthwiseBlock<T> block;
        block.in.resize(volume);
        block.out.resize(volume);
        block.count.resize(volume);
        const int64_t end = std::min(task * 16 + 16, blocks);
        for (int64_t b = task * 16; b < end; b += step) {
            const int64_t last = std::min(b + step, end);
            block.row0 = b * kBlockRows;
            block.rows = std::min(a.n_out, last * kBlockRows) - block.row0;
            for (size_t k = 0; k < volume; ++k) {
                const PairList &list = a.lists[k];
                if (!list.block) continue;
                int64_t begin;
                block_range<T>(list, b, last, a.n_in, block.row0, block.rows, begin, block.count[k]);
                block.in[k] = list.in + begin;
                block.out[k] = list.out + begin;
            }
            int64_t c = 0;
            for (; c + 4 * W <= channels; c += 4 * W) depthwise_columns<T, 4>(a, block, c);
            for (; c + 2 * W <= channels; c += 2 * W) depthwise_columns<T, 2>(a, block, c);
            for (; c + W <= channels; c += W) depthwise_columns<T, 1>(a, block, c);
            for (; c < channels; ++c) depthwise_channel(a, block, c);
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
