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

#if defined(__AVX512F__)
constexpr int kGradRows1 = 16, kGradRows2 = 8;  // input channels per tile, for one and two vectors of columns
#elif defined(__AVX2__)
constexpr int kGradRows1 = 12, kGradRows2 = 6;
#else
constexpr int kGradRows1 = 4, kGradRows2 = 4;
#endif
constexpr int64_t kPanelPairs = 128;

/// Sums of one group over a run of pairs of one offset, reading rows where they lie. cout is a multiple of the width.
template <typename T>
void gradient_direct(const GradArgs<T> &a, int64_t g, int64_t count, const int32_t *in, const int32_t *out, T *grad) {
    constexpr int W = Vec<T>::width;
    const int64_t ldx = a.groups * a.cin, ldy = a.groups * a.cout;
    for (int64_t p0 = 0; p0 < count; p0 += kPanelPairs) {
        const int64_t n = std::min(kPanelPairs, count - p0);
        for (int64_t j0 = 0; j0 < a.cout;) {
            const bool wide = a.cout - j0 >= 2 * W;
            const T *y = a.grad_out + g * a.cout + j0;
            const int step = wide ? kGradRows2 : kGradRows1;
            for (int64_t c0 = 0; c0 < a.cin; c0 += step) {
                const T *x = a.feats + g * a.cin + c0;
                const int64_t rows = std::min<int64_t>(step, a.cin - c0);
                T *to = grad + c0 * a.cout + j0;
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
void gradient_packed(const GradArgs<T> &a, int64_t g, int64_t count, const int32_t *in, const int32_t *out, T *grad,
                     T *panel_x, T *panel_y, int64_t columns) {
    constexpr int W = Vec<T>::width;
    const int64_t ldx = a.groups * a.cin, ldy = a.groups * a.cout;
    for (int64_t p0 = 0; p0 < count; p0 += kPanelPairs) {
        const int64_t n = std::min(kPanelPairs, count - p0);
        for (int64_t c0 = 0; c0 < a.cin; c0 += kGradRows2) {
            const int64_t rows = std::min<int64_t>(kGradRows2, a.cin - c0);
            T *to = panel_x + c0 * n;
            for (int64_t p = 0; p < n; ++p, to += rows) {
                const T *from = a.feats + static_cast<int64_t>(in[p0 + p]) * ldx + g * a.cin + c0;
                for (int64_t r = 0; r < rows; ++r) to[r] = from[r];
            }
        }
        for (int64_t j0 = 0; j0 < columns;) {
            const int64_t wide = columns - j0 >= 2 * W ? 2 * W : W;
            const int64_t used = std::min(wide, a.cout - j0);
            T *to = panel_y + j0 * n;
            for (int64_t p = 0; p < n; ++p, to += wide) {
                const T *from = a.grad_out + static_cast<int64_t>(out[p0 + p]) * ldy + g * a.cout + j0;
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
            for (int64_t c0 = 0; c0 < a.cin; c0 += kGradRows2) {
                const int64_t rows = std::min<int64_t>(kGradRows2, a.cin - c0);
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

/// Number of chunks: few for small clouds, where adding up partial sums would cost more than computing them.
inline int64_t gradient_chunks(int64_t blocks) { return std::max<int64_t>(1, std::min(kGradientChunks, blocks / 16)); }

template <typename T>
void gradient(const GradArgs<T> &a) {
    constexpr int W = Vec<T>::width;
    const int64_t volume = static_cast<int64_t>(a.lists.size());
    const int64_t columns = (a.cout + W - 1) / W * W;
    const bool direct = columns == a.cout && a.cin <= 32 && a.cout <= 32;
    const int64_t blocks = (a.n_out + kBlockRows - 1) / kBlockRows;
    const int64_t chunks = gradient_chunks(blocks);
    const int64_t per_offset = a.groups * a.cin * columns;
    std::vector<T> partial(static_cast<size_t>(chunks * volume * per_offset), T(0));
    std::vector<int32_t> ramp(static_cast<size_t>(8 * kBlockRows));

    // A task sums the offsets of one slice over one chunk; which slice an offset is in does not change its sum.
    const int64_t slices = std::min<int64_t>(volume, (a.threads + 3) / 4);
    parallel_for(chunks * slices, a.threads, [&](int64_t task) {
        const int64_t chunk = task / slices, slice = task % slices;
        const int64_t begin_block = blocks * chunk / chunks, end_block = blocks * (chunk + 1) / chunks;
        std::vector<T> panel_x, panel_y;
        std::vector<int32_t> rows_of_block(static_cast<size_t>(8 * kBlockRows));
        if (!direct) {
            panel_x.resize(static_cast<size_t>(kPanelPairs * a.cin));
            panel_y.resize(static_cast<size_t>(kPanelPairs * columns));
        }
        for (int64_t first = begin_block; first < end_block; first += 8) {
            const int64_t last = std::min(first + 8, end_block);
            const int64_t row0 = first * kBlockRows, rows = std::min(last * kBlockRows, a.n_out) - row0;
            for (int64_t k = slice; k < volume; k += slices) {
                const PairList &list = a.lists[k];
                int64_t begin = 0, count = rows;
                const int32_t *in, *out;
                if (list.block) {
                    block_range<T>(list, first, last, a.n_in, row0, rows, begin, count);
                    in = list.in + begin;
                    out = list.out + begin;
                } else {
                    for (int64_t r = 0; r < rows; ++r) rows_of_block[r] = static_cast<int32_t>(row0 + r);
                    in = out = rows_of_block.data();
                }
                for (int64_t g = 0; g < a.groups; ++g) {
                    T *sum = partial.data() + (chunk * volume + k) * per_offset + g * a.cin * columns;
                    if (direct)
                        gradient_direct(a, g, count, in, out, sum);
                    else
                        gradient_packed(a, g, count, in, out, sum, panel_x.data(), panel_y.data(), columns);
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
