// SPDX-License-Identifier: Apache-2.0
// Output-stationary convolution: a block of output rows stays in cache while all offsets add to it. A register tile
// of MR rows x NV vectors reads its input rows where they lie; nothing is gathered into memory.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "conv.h"
#include "kernels/vec.h"
#include "threads.h"

namespace vision3d {
namespace VISION3D_ISA {

constexpr int kTileRows = 8;  // eight input pointers fit the integer registers
#if defined(VISION3D_AVX512)
constexpr int kForwardRows = 8;
#elif defined(VISION3D_AVX2)
constexpr int kForwardRows = 6;  // 6 x 2 sums, 2 weights and 1 input value: 15 of 16 registers
#else
constexpr int kForwardRows = 4;
#endif

/// Columns of one register tile.
template <typename T, int NV>
constexpr int tile_columns() {
    return NV * Vec<T>::width;
}

/// Sums of MR pairs: out[rows_out[r]] (+)= feats[rows_in[r]] @ w, for NV vectors of columns.
template <typename T, int MR, int NV, bool Fresh>
VISION3D_INLINE void forward_tile(const T *feats, int64_t ldx, const int32_t *rows_in, const T *w, T *out, int64_t ldo,
                                  const int32_t *rows_out, int64_t cin) {
    using V = Vec<T>;
    const T *x[MR];
    for (int r = 0; r < MR; ++r) x[r] = feats + static_cast<int64_t>(rows_in[r]) * ldx;
    V sum[MR][NV];
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v)
            sum[r][v] = Fresh ? V::zero() : V::load(out + static_cast<int64_t>(rows_out[r]) * ldo + v * V::width);
    for (int64_t c = 0; c < cin; ++c, w += NV * V::width) {
        V b[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) b[v] = V::load(w + v * V::width);
#pragma GCC unroll 8
        for (int r = 0; r < MR; ++r) {
            const V a = V::splat(x[r][c]);
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v) sum[r][v].fma(a, b[v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) sum[r][v].store(out + static_cast<int64_t>(rows_out[r]) * ldo + v * V::width);
}

template <typename T, int NV, bool Fresh, int MR>
void forward_tail(int64_t rest, const T *feats, int64_t ldx, const int32_t *in, const T *w, T *out, int64_t ldo,
                  const int32_t *o, int64_t cin) {
    if constexpr (MR > 0) {
        if (rest == MR)
            forward_tile<T, MR, NV, Fresh>(feats, ldx, in, w, out, ldo, o, cin);
        else
            forward_tail<T, NV, Fresh, MR - 1>(rest, feats, ldx, in, w, out, ldo, o, cin);
    }
}

/// Fetches `count` rows of `channels` values, up to 256 bytes of each: neighbours across a plane of the grid are far
/// away in memory.
template <typename T>
VISION3D_INLINE void prefetch_rows(int64_t count, const T *x, int64_t ldx, const int32_t *rows, int64_t channels) {
    const int64_t bytes = channels * static_cast<int64_t>(sizeof(T));
    for (int64_t p = 0; p < count; ++p) {
        const char *row = reinterpret_cast<const char *>(x + static_cast<int64_t>(rows[p]) * ldx);
        prefetch(row);
        if (bytes > 64) prefetch(row + 64);
        if (bytes > 128) {
            prefetch(row + 128);
            prefetch(row + 192);
        }
    }
}

/// All pairs of one offset within one block, one tile of columns. Ahead: also fetch rows three tiles ahead.
template <typename T, int NV, bool Fresh, bool Ahead>
void forward_pairs(int64_t count, const T *feats, int64_t ldx, const int32_t *in, const T *w, T *out, int64_t ldo,
                   const int32_t *o, int64_t cin) {
    constexpr int64_t kAhead = 3 * kForwardRows;
    int64_t p = 0;
    for (; p + kForwardRows <= count; p += kForwardRows) {
        // A low last tile would have too few sums to hide their latency: the last two share their rows.
        if (count - p < 2 * kForwardRows && count - p > kForwardRows) break;
        if (Ahead && p + kAhead + kForwardRows <= count) prefetch_rows(kForwardRows, feats, ldx, in + p + kAhead, cin);
        forward_tile<T, kForwardRows, NV, Fresh>(feats, ldx, in + p, w, out, ldo, o + p, cin);
    }
    if (count - p > kForwardRows) {
        const int64_t half = (count - p) / 2;
        forward_tail<T, NV, Fresh, kForwardRows>(half, feats, ldx, in + p, w, out, ldo, o + p, cin);
        p += half;
    }
    if (p < count) forward_tail<T, NV, Fresh, kForwardRows>(count - p, feats, ldx, in + p, w, out, ldo, o + p, cin);
}

/// Weights as the tiles read them: [group][offset][tile of columns][cin][columns], padded with zeros.
template <typename T>
struct PackedWeights {
    std::vector<T> data;
    int64_t columns;  // padded
    int64_t stride;   // elements per (group, offset)
};

template <typename T>
PackedWeights<T> pack_weights(const ConvArgs<T> &a) {
    constexpr int W = Vec<T>::width;
    PackedWeights<T> packed;
    packed.columns = (a.cout + W - 1) / W * W;
    packed.stride = packed.columns * a.cin;
    const int64_t volume = static_cast<int64_t>(a.lists.size());
    packed.data.assign(static_cast<size_t>(a.groups * volume * packed.stride), T(0));
    // Forward: weight (K, cin, groups * cout). Transposed (input gradient): the layer's weight is
    // (K, cout here, groups * cin here), because its outputs are our inputs.
    const int64_t row = a.transpose_weight ? a.groups * a.cin : a.groups * a.cout;
    for (int64_t g = 0; g < a.groups; ++g)
        for (int64_t k = 0; k < volume; ++k) {
            T *to = packed.data.data() + (g * volume + k) * packed.stride;
            const T *from = a.weight + k * (a.transpose_weight ? a.cout : a.cin) * row;
            for (int64_t j0 = 0; j0 < packed.columns;) {
                const int64_t wide = packed.columns - j0 >= 2 * W ? 2 * W : W;
                const int64_t used = std::min(wide, a.cout - j0);
                if (a.transpose_weight) {
                    for (int64_t j = 0; j < used; ++j)
                        for (int64_t c = 0; c < a.cin; ++c)
                            to[c * wide + j] = from[(j0 + j) * row + g * a.cin + c];
                } else {
                    for (int64_t c = 0; c < a.cin; ++c)
                        std::copy_n(from + c * row + g * a.cout + j0, used, to + c * wide);
                }
                to += a.cin * wide;
                j0 += wide;
            }
        }
    return packed;
}

/// Pairs of one list whose output row lies in blocks [first, last); checked.
template <typename T>
VISION3D_INLINE void block_range(const PairList &list, int64_t first, int64_t last, int64_t n_in, int64_t row0, int64_t rows,
                        int64_t &begin, int64_t &count) {
    begin = list.block[first];
    count = list.block[last] - begin;
    if (!rows_in_range(list.in + begin, count, 0, static_cast<uint32_t>(n_in)) ||
        !rows_in_range(list.out + begin, count, static_cast<uint32_t>(row0), static_cast<uint32_t>(rows)))
        throw std::out_of_range("kernel map: a row number is out of range");
}

/// The pairs of one offset within one block.
struct BlockPairs {
    int64_t offset, count;
    const int32_t *in, *out;
    bool identity;  // row numbers count from the start of the block, not of the cloud
};

/// The non-empty lists of a block, the identity first: it writes every row, so nothing need be cleared before it.
template <typename T>
void block_pairs(const ConvArgs<T> &a, int64_t first, int64_t last, int64_t row0, int64_t rows, const int32_t *ramp,
                 std::vector<BlockPairs> &steps) {
    steps.clear();
    for (size_t k = 0; k < a.lists.size(); ++k)
        if (!a.lists[k].block) steps.push_back({static_cast<int64_t>(k), rows, ramp, ramp, true});
    for (size_t k = 0; k < a.lists.size(); ++k) {
        const PairList &list = a.lists[k];
        if (!list.block) continue;
        int64_t begin, count;
        block_range<T>(list, first, last, a.n_in, row0, rows, begin, count);
        if (count) steps.push_back({static_cast<int64_t>(k), count, list.in + begin, list.out + begin, false});
    }
}

/// All column tiles of one offset.
template <typename T, bool Fresh>
void forward_columns(const BlockPairs &pairs, const T *x, int64_t ldx, const T *w, T *y, int64_t ldo, int64_t columns,
                     int64_t cin) {
    constexpr int W = Vec<T>::width;
    for (int64_t j0 = 0; j0 < columns;) {
        const bool wide = columns - j0 >= 2 * W;
        const auto run = [&](auto tile) {
            tile(pairs.count, x, ldx, pairs.in, w, y + j0, ldo, pairs.out, cin);
        };
        // Rows are fetched once, by the first tile of columns; the others find them in the cache.
        if (wide && j0 == 0)
            run(forward_pairs<T, 2, Fresh, true>);
        else if (wide)
            run(forward_pairs<T, 2, Fresh, false>);
        else if (j0 == 0)
            run(forward_pairs<T, 1, Fresh, true>);
        else
            run(forward_pairs<T, 1, Fresh, false>);
        w += cin * (wide ? 2 * W : W);
        j0 += wide ? 2 * W : W;
    }
}

/// Bias and ReLU, from where the sums are to where they belong.
template <typename T>
void forward_epilogue(const ConvArgs<T> &a, int64_t g, const T *sums, int64_t ldo, int64_t row0, int64_t rows) {
    const T *bias = a.bias ? a.bias + g * a.cout : nullptr;
    for (int64_t r = row0; r < row0 + rows; ++r) {
        const T *from = sums + r * ldo;
        T *to = a.out + r * a.groups * a.cout + g * a.cout;
        for (int64_t j = 0; j < a.cout; ++j) {
            const T value = from[j] + (bias ? bias[j] : T(0));
            to[j] = a.relu && value < T(0) ? T(0) : value;
        }
    }
}

/// One block of output rows of one group.
template <typename T>
void forward_block(const ConvArgs<T> &a, const PackedWeights<T> &packed, int64_t g, int64_t row0, int64_t rows, T *stage,
                   const std::vector<BlockPairs> &steps) {
    const int64_t ldx = a.groups * a.cin;
    const bool staged = packed.columns != a.cout;
    const int64_t ldo = staged ? packed.columns : a.groups * a.cout;
    // Row numbers count from the start of the cloud; so does this base, even where it points into the stage.
    T *out = staged ? stage - row0 * ldo : a.out + g * a.cout;
    const T *feats = a.feats + g * a.cin;
    const int64_t volume = static_cast<int64_t>(a.lists.size());
    if (steps.empty() || !steps[0].identity)
        for (int64_t r = 0; r < rows; ++r) std::fill_n(out + (row0 + r) * ldo, packed.columns, T(0));
    for (size_t s = 0; s < steps.size(); ++s) {
        const BlockPairs &now = steps[s];
        // The first rows of the next offset travel while this one is computed.
        if (s + 1 < steps.size())
            prefetch_rows(std::min<int64_t>(3 * kForwardRows, steps[s + 1].count), feats, ldx, steps[s + 1].in, a.cin);
        const T *w = packed.data.data() + (g * volume + now.offset) * packed.stride;
        if (now.identity)
            forward_columns<T, true>(now, feats + row0 * ldx, ldx, w, out + row0 * ldo, ldo, packed.columns, a.cin);
        else
            forward_columns<T, false>(now, feats, ldx, w, out, ldo, packed.columns, a.cin);
    }
    if (staged || a.bias || a.relu) forward_epilogue(a, g, out, ldo, row0, rows);
}

template <typename T>
void forward(const ConvArgs<T> &a) {
    const PackedWeights<T> packed = pack_weights(a);
    const int64_t blocks = (a.n_out + kBlockRows - 1) / kBlockRows;
    // Large enough to amortise a pass over the weights, small enough that rows stay in the second-level cache.
    const int64_t per_task = std::max<int64_t>(1, std::min<int64_t>(8, blocks / (2 * a.threads)));
    const int64_t tasks = (blocks + per_task - 1) / per_task;
    std::vector<int32_t> ramp(static_cast<size_t>(per_task * kBlockRows));
    for (size_t i = 0; i < ramp.size(); ++i) ramp[i] = static_cast<int32_t>(i);
    parallel_for(tasks, a.threads, [&](int64_t task) {
        const int64_t first = task * per_task, last = std::min(first + per_task, blocks);
        std::vector<T> stage;
        if (packed.columns != a.cout) stage.resize(static_cast<size_t>(per_task * kBlockRows * packed.columns));
        const int64_t row0 = first * kBlockRows, rows = std::min(last * kBlockRows, a.n_out) - row0;
        std::vector<BlockPairs> steps;
        block_pairs(a, first, last, row0, rows, ramp.data(), steps);
        for (int64_t g = 0; g < a.groups; ++g) forward_block(a, packed, g, row0, rows, stage.data(), steps);
    });
}

}  // namespace VISION3D_ISA
}  // namespace vision3d
