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
#if defined(__AVX512F__)
constexpr int kForwardRows = 8;
#elif defined(__AVX2__)
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

/// All pairs of one offset within one block, one tile of columns.
template <typename T, int NV, bool Fresh>
void forward_pairs(int64_t count, const T *feats, int64_t ldx, const int32_t *in, const T *w, T *out, int64_t ldo,
                   const int32_t *o, int64_t cin) {
    int64_t p = 0;
    for (; p + kForwardRows <= count; p += kForwardRows) {
        // Rows of the tile after the next: neighbours across a plane of the grid are far away in memory.
        if (p + 4 * kForwardRows <= count)
            for (int r = 0; r < kForwardRows; ++r) prefetch(feats + static_cast<int64_t>(in[p + 3 * kForwardRows + r]) * ldx);
        forward_tile<T, kForwardRows, NV, Fresh>(feats, ldx, in + p, w, out, ldo, o + p, cin);
    }
    if (p < count)
        forward_tail<T, NV, Fresh, kForwardRows - 1>(count - p, feats, ldx, in + p, w, out, ldo, o + p, cin);
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

/// One block of output rows of one group.
template <typename T>
void forward_block(const ConvArgs<T> &a, const PackedWeights<T> &packed, int64_t g, int64_t first, int64_t last,
                   T *stage, const int32_t *ramp) {
    constexpr int W = Vec<T>::width;
    const int64_t row0 = first * kBlockRows, rows = std::min(last * kBlockRows, a.n_out) - row0;
    const int64_t ldx = a.groups * a.cin;
    const bool staged = packed.columns != a.cout;
    const int64_t ldo = staged ? packed.columns : a.groups * a.cout;
    // Row numbers count from the start of the cloud; so does this base, even where it points into the stage.
    T *out = staged ? stage - row0 * ldo : a.out + g * a.cout;
    const T *feats = a.feats + g * a.cin;
    const int64_t volume = static_cast<int64_t>(a.lists.size());

    int64_t fresh = -1;  // the identity writes every row, so it goes first and nothing need be cleared
    for (int64_t k = 0; k < volume; ++k)
        if (!a.lists[k].block) fresh = k;
    if (fresh < 0)
        for (int64_t r = 0; r < rows; ++r) std::fill_n(out + (row0 + r) * ldo, packed.columns, T(0));

    for (int64_t step = fresh < 0 ? 0 : -1; step < volume; ++step) {
        const int64_t k = step < 0 ? fresh : step;
        if (step >= 0 && k == fresh) continue;
        const PairList &list = a.lists[k];
        int64_t begin = 0, count = rows;
        const int32_t *in = ramp, *o = ramp;
        if (list.block) {
            block_range<T>(list, first, last, a.n_in, row0, rows, begin, count);
            in = list.in + begin;
            o = list.out + begin;
        }
        if (count == 0) continue;
        // The identity counts rows from the block's start, a list from the cloud's.
        const T *x = list.block ? feats : feats + row0 * ldx;
        T *y = list.block ? out : out + row0 * ldo;
        const T *w = packed.data.data() + (g * volume + k) * packed.stride;
        for (int64_t j0 = 0; j0 < packed.columns;) {
            const bool wide = packed.columns - j0 >= 2 * W;
            if (list.block) {
                if (wide)
                    forward_pairs<T, 2, false>(count, x, ldx, in, w, y + j0, ldo, o, a.cin);
                else
                    forward_pairs<T, 1, false>(count, x, ldx, in, w, y + j0, ldo, o, a.cin);
            } else {
                if (wide)
                    forward_pairs<T, 2, true>(count, x, ldx, in, w, y + j0, ldo, o, a.cin);
                else
                    forward_pairs<T, 1, true>(count, x, ldx, in, w, y + j0, ldo, o, a.cin);
            }
            w += a.cin * (wide ? 2 * W : W);
            j0 += wide ? 2 * W : W;
        }
    }

    if (!staged && !a.bias && !a.relu) return;
    const T *bias = a.bias ? a.bias + g * a.cout : nullptr;
    for (int64_t r = row0; r < row0 + rows; ++r) {
        const T *from = out + r * ldo;
        T *to = a.out + r * a.groups * a.cout + g * a.cout;
        for (int64_t j = 0; j < a.cout; ++j) {
            T value = from[j] + (bias ? bias[j] : T(0));
            to[j] = a.relu && value < T(0) ? T(0) : value;
        }
    }
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
        for (int64_t g = 0; g < a.groups; ++g) forward_block(a, packed, g, first, last, stage.data(), ramp.data());
    });
}

}  // namespace VISION3D_ISA
}  // namespace vision3d
