// SPDX-License-Identifier: Apache-2.0
// Weight gradient: per offset, the product of gathered inputs and gathered output gradients, summed over pairs.
// Rows are cut into a fixed number of chunks with a partial sum each, added up in order at the end, so that the
// result does not depend on the number of threads.
#pragma once

#include <algorithm>
#include <vector>

#include "conv.h"
#include "kernels/forward.h"
#include "kernels/vec.h"
#include "threads.h"

namespace vision3d {
namespace VISION3D_ISA {

/// grad[r][columns] += sum_p x(p)[r] * y(p)[columns], MR input channels by NV vectors of output channels.
/// Packed: x is [pair][MR] and y [pair][NV * width]; otherwise both are gathered through the pairs' row numbers.
template <typename T, int MR, int NV, bool Packed>
VISION3D_INLINE void gradient_tile(int64_t count, const T *x, int64_t ldx, const int32_t *in, const T *y, int64_t ldy,
                                   const int32_t *out, T *grad, int64_t ldg) {
    using V = Vec<T>;
    V sum[MR][NV];
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) sum[r][v] = V::load(grad + r * ldg + v * V::width);
    for (int64_t p = 0; p < count; ++p) {
        const T *xp = Packed ? x + p * MR : x + static_cast<int64_t>(in[p]) * ldx;
        const T *yp = Packed ? y + p * NV * V::width : y + static_cast<int64_t>(out[p]) * ldy;
        V b[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) b[v] = V::load(yp + v * V::width);
#pragma GCC unroll 16
        for (int r = 0; r < MR; ++r) {
            const V a = V::splat(xp[r]);
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v) sum[r][v].fma(a, b[v]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) sum[r][v].store(grad + r * ldg + v * V::width);
}

template <typename T, int NV, bool Packed, int MR>
void gradient_tail(int64_t rows, int64_t count, const T *x, int64_t ldx, const int32_t *in, const T *y, int64_t ldy,
                   const int32_t *out, T *grad, int64_t ldg) {
    if constexpr (MR > 0) {
        if (rows == MR)
            gradient_tile<T, MR, NV, Packed>(count, x, ldx, in, y, ldy, out, grad, ldg);
        else
            gradient_tail<T, NV, Packed, MR - 1>(rows, count, x, ldx, in, y, ldy, out, grad, ldg);
    }
}

#if defined(VISION3D_AVX512)
constexpr int kGradRows1 = 16, kGradRows2 = 8;  // input channels per tile, for one and two vectors of columns
#elif defined(VISION3D_AVX2)
constexpr int kGradRows1 = 12, kGradRows2 = 6;
#else
constexpr int kGradRows1 = 4, kGradRows2 = 4;
#endif
constexpr int64_t kPanelPairs = 128;

/// Input channels are cut into tiles of equal height: a low last tile would have too few sums to hide their latency.
/// Sums of one group over a run of pairs of one offset, reading rows where they lie. cout is a multiple of the width.
template <typename T>
void gradient_direct(const GradArgs<T> &a, const T *feats, const T *grad_out, int64_t count, const int32_t *in,
                     const int32_t *out, T *grad, bool fetch) {
    constexpr int W = Vec<T>::width;
    const int64_t ldx = a.groups * a.cin, ldy = a.groups * a.cout;
    for (int64_t p0 = 0; p0 < count; p0 += kPanelPairs) {
        const int64_t n = std::min(kPanelPairs, count - p0);
        const int64_t next = fetch ? std::min(kPanelPairs, count - p0 - n) : 0;
        for (int64_t j0 = 0; j0 < a.cout;) {
            const bool wide = a.cout - j0 >= 2 * W;
            const T *y = grad_out + j0;
            const int64_t tiles = (a.cin + (wide ? kGradRows2 : kGradRows1) - 1) / (wide ? kGradRows2 : kGradRows1);
            for (int64_t tile = 0; tile < tiles; ++tile) {
                const int64_t c0 = a.cin * tile / tiles, rows = a.cin * (tile + 1) / tiles - c0;
                const T *x = feats + c0;
                T *to = grad + c0 * a.cout + j0;
                if (j0 == 0) {
                    const int64_t from = next * tile / tiles, share = next * (tile + 1) / tiles - from;
                    prefetch_rows(share, feats, ldx, in + p0 + n + from, a.cin);
                    prefetch_rows(share, grad_out, ldy, out + p0 + n + from, a.cout);
                }
                if (wide)
                    gradient_tail<T, 2, false, kGradRows2>(rows, n, x, ldx, in + p0, y, ldy, out + p0, to, a.cout);
                else
                    gradient_tail<T, 1, false, kGradRows1>(rows, n, x, ldx, in + p0, y, ldy, out + p0, to, a.cout);
            }
            j0 += wide ? 2 * W : W;
        }
    }
}

/// The same through panels packed once per run of pairs and read by all tiles; any cout.
template <typename T>
void gradient_packed(const GradArgs<T> &a, const T *feats, const T *grad_out, int64_t count, const int32_t *in,
                     const int32_t *out, T *grad, T *panel_x, T *panel_y, int64_t columns) {
    constexpr int W = Vec<T>::width;
    const int64_t ldx = a.groups * a.cin, ldy = a.groups * a.cout;
    const int64_t tiles = (a.cin + kGradRows2 - 1) / kGradRows2;
    for (int64_t p0 = 0; p0 < count; p0 += kPanelPairs) {
        const int64_t n = std::min(kPanelPairs, count - p0);
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const int64_t c0 = a.cin * tile / tiles, rows = a.cin * (tile + 1) / tiles - c0;
            T *to = panel_x + c0 * n;
            for (int64_t p = 0; p < n; ++p, to += rows) {
                const T *from = feats + static_cast<int64_t>(in[p0 + p]) * ldx + c0;
                for (int64_t r = 0; r < rows; ++r) to[r] = from[r];
            }
        }
        for (int64_t j0 = 0; j0 < columns;) {
            const int64_t wide = columns - j0 >= 2 * W ? 2 * W : W;
            const int64_t used = std::min(wide, a.cout - j0);
            T *to = panel_y + j0 * n;
            for (int64_t p = 0; p < n; ++p, to += wide) {
                const T *from = grad_out + static_cast<int64_t>(out[p0 + p]) * ldy + j0;
                if (used == 2 * W) {
                    Vec<T>::load(from).store(to);
                    Vec<T>::load(from + W).store(to + W);
                } else {
                    for (int64_t j = 0; j < wide; ++j) to[j] = j < used ? from[j] : T(0);
                }
            }
            j0 += wide;
        }
        for (int64_t j0 = 0; j0 < columns;) {
            const bool wide = columns - j0 >= 2 * W;
            for (int64_t tile = 0; tile < tiles; ++tile) {
                const int64_t c0 = a.cin * tile / tiles, rows = a.cin * (tile + 1) / tiles - c0;
                T *to = grad + c0 * columns + j0;
                const T *x = panel_x + c0 * n, *y = panel_y + j0 * n;
                if (wide)
                    gradient_tail<T, 2, true, kGradRows2>(rows, n, x, 0, nullptr, y, 0, nullptr, to, columns);
                else
                    gradient_tail<T, 1, true, kGradRows2>(rows, n, x, 0, nullptr, y, 0, nullptr, to, columns);
            }
            j0 += wide ? 2 * W : W;
        }
    }
}

/// The non-empty lists of one slice of the offsets, in one block.
template <typename T>
void gradient_steps(const GradArgs<T> &a, int64_t slice, int64_t slices, int64_t first, int64_t last, int64_t row0,
                    int64_t rows, const int32_t *ramp, std::vector<BlockPairs> &steps) {
    steps.clear();
    for (int64_t k = slice; k < static_cast<int64_t>(a.lists.size()); k += slices) {
        const PairList &list = a.lists[k];
        if (!list.block) {
            steps.push_back({k, rows, ramp, ramp, true});
            continue;
        }
        int64_t begin, count;
        block_range<T>(list, first, last, a.n_in, row0, rows, begin, count);
        if (count) steps.push_back({k, count, list.in + begin, list.out + begin, false});
    }
}

/// Number of chunks: few for small clouds, where adding up partial sums would cost more than computing them.
inline int64_t gradient_chunks(int64_t blocks) { return std::max<int64_t>(1, std::min(kGradientChunks, blocks / 16)); }

template <typename T>
void gradient(const GradArgs<T> &a) {
    constexpr int W = Vec<T>::width;
    const int64_t volume = static_cast<int64_t>(a.lists.size());
    const int64_t columns = (a.cout + W - 1) / W * W;
    const bool direct = columns == a.cout && a.cin <= 128 && a.cout <= 128;
    const int64_t blocks = (a.n_out + kBlockRows - 1) / kBlockRows;
    const int64_t chunks = gradient_chunks(blocks);
    // Rows that few pairs read come from memory, out of order: nobody but us can tell the processor to fetch them.
    int64_t pairs = 0;
    for (const PairList &list : a.lists) pairs += list.block ? list.block[blocks] : a.n_out;
    const bool fetch = pairs < 4 * a.n_in && a.cin > 16;
    const int64_t per_offset = a.groups * a.cin * columns;
    std::vector<T> partial(static_cast<size_t>(chunks * volume * per_offset), T(0));
    std::vector<int32_t> ramp(static_cast<size_t>(8 * kBlockRows));
    for (size_t i = 0; i < ramp.size(); ++i) ramp[i] = static_cast<int32_t>(i);

    // A task sums the offsets of one slice over one chunk; which slice an offset is in does not change its sum.
    const int64_t slices = std::min<int64_t>(volume, (a.threads + 3) / 4);
    parallel_for(chunks * slices, a.threads, [&](int64_t task) {
        const int64_t chunk = task / slices, slice = task % slices;
        const int64_t begin_block = blocks * chunk / chunks, end_block = blocks * (chunk + 1) / chunks;
        std::vector<T> panel_x, panel_y;
        std::vector<BlockPairs> steps;
        if (!direct) {
            panel_x.resize(static_cast<size_t>(kPanelPairs * a.cin));
            panel_y.resize(static_cast<size_t>(kPanelPairs * columns));
        }
        for (int64_t first = begin_block; first < end_block; first += 8) {
            const int64_t last = std::min(first + 8, end_block);
            const int64_t row0 = first * kBlockRows, rows = std::min(last * kBlockRows, a.n_out) - row0;
            gradient_steps(a, slice, slices, first, last, row0, rows, ramp.data(), steps);
            for (size_t s = 0; s < steps.size(); ++s) {
                const BlockPairs &now = steps[s];
                if (fetch && s + 1 < steps.size())
                    prefetch_rows(std::min(kPanelPairs, steps[s + 1].count), a.feats, a.cin * a.groups, steps[s + 1].in,
                                  a.cin * a.groups);
                const int64_t base = now.identity ? row0 : 0;
                for (int64_t g = 0; g < a.groups; ++g) {
                    T *sum = partial.data() + (chunk * volume + now.offset) * per_offset + g * a.cin * columns;
                    const T *x = a.feats + base * a.groups * a.cin + g * a.cin;
                    const T *y = a.grad_out + base * a.groups * a.cout + g * a.cout;
                    if (direct)
                        gradient_direct(a, x, y, now.count, now.in, now.out, sum, fetch);
                    else
                        gradient_packed(a, x, y, now.count, now.in, now.out, sum, panel_x.data(), panel_y.data(), columns);
                }
            }
        }
    });
    parallel_for(volume, a.threads, [&](int64_t k) {
        for (int64_t g = 0; g < a.groups; ++g)
            for (int64_t c = 0; c < a.cin; ++c) {
                T *to = a.grad_weight + ((k * a.cin + c) * a.groups + g) * a.cout;
                std::fill_n(to, a.cout, T(0));
                for (int64_t chunk = 0; chunk < chunks; ++chunk) {
                    const T *from = partial.data() + (chunk * volume + k) * per_offset + (g * a.cin + c) * columns;
                    for (int64_t j = 0; j < a.cout; ++j) to[j] += from[j];
                }
            }
    });
}

}  // namespace VISION3D_ISA
}  // namespace vision3d
