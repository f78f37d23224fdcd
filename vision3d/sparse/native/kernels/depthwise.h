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

/// out[o] += x[i] * w over one tile of NV vectors of channels, whose weights stay in registers.
template <typename T, int NV>
VISION3D_INLINE void depthwise_pairs(int64_t count, const T *x, const int32_t *in, T *out, const int32_t *o, const T *w, int64_t ld) {
    using V = Vec<T>;
    V weight[NV];
    for (int v = 0; v < NV; ++v) weight[v] = V::load(w + v * V::width);
    for (int64_t p = 0; p < count; ++p) {
        const T *from = x + static_cast<int64_t>(in[p]) * ld;
        T *to = out + static_cast<int64_t>(o[p]) * ld;
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
            V sum = V::load(to + v * V::width);
            sum.fma(V::load(from + v * V::width), weight[v]);
            sum.store(to + v * V::width);
        }
    }
}

template <typename T>
void depthwise_channels(int64_t channels, int64_t count, const T *x, const int32_t *in, T *out, const int32_t *o, const T *w) {
    constexpr int W = Vec<T>::width;
    int64_t c = 0;
    for (; c + 2 * W <= channels; c += 2 * W) depthwise_pairs<T, 2>(count, x + c, in, out + c, o, w + c, channels);
    for (; c + W <= channels; c += W) depthwise_pairs<T, 1>(count, x + c, in, out + c, o, w + c, channels);
    if (c == channels) return;
    for (int64_t p = 0; p < count; ++p)
        for (int64_t j = c; j < channels; ++j)
            out[static_cast<int64_t>(o[p]) * channels + j] += x[static_cast<int64_t>(in[p]) * channels + j] * w[j];
}

template <typename T>
void depthwise(const ConvArgs<T> &a) {
    const int64_t channels = a.groups, blocks = (a.n_out + kBlockRows - 1) / kBlockRows;
    parallel_for(blocks, a.threads, [&](int64_t block) {
        const int64_t row0 = block * kBlockRows, rows = std::min(a.n_out - row0, kBlockRows);
        T *out = a.out + row0 * channels;
        for (int64_t r = 0; r < rows; ++r)
            if (a.bias)
                std::copy_n(a.bias, channels, out + r * channels);
            else
                std::fill_n(out + r * channels, channels, T(0));
        for (size_t k = 0; k < a.lists.size(); ++k) {
            const PairList &list = a.lists[k];
            const T *w = a.weight + static_cast<int64_t>(k) * channels;
            if (list.block) {
                int64_t begin, count;
                block_range<T>(list, block, block + 1, a.n_in, row0, rows, begin, count);
                depthwise_channels(channels, count, a.feats, list.in + begin, a.out, list.out + begin, w);
            } else {
                int32_t ramp[kBlockRows];
                for (int64_t r = 0; r < rows; ++r) ramp[r] = static_cast<int32_t>(r);
                depthwise_channels(channels, rows, a.feats + row0 * channels, ramp, out, ramp, w);
            }
        }
        if (a.relu)
            for (int64_t i = 0; i < rows * channels; ++i) out[i] = out[i] < T(0) ? T(0) : out[i];
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
