// SPDX-License-Identifier: Apache-2.0
// Pooling over a kernel map, reductions over segments, and what their gradients need. float and double.
//
// Every sum runs in an order that the input fixes, never the threads: results are the same bits for any thread count.
// Row numbers are checked as they are used; a bad one throws std::out_of_range.
#pragma once

#include <cstdint>
#include <vector>

#include "conv.h"

namespace vision3d {

/// best = max(best, x), channel by channel: of equal values the first stays, and the first NaN beats all numbers.
template <typename T, bool Keep>
inline void take_larger(int64_t channels, const T *__restrict__ x, int32_t row, T *__restrict__ best,
                        int32_t *__restrict__ source) {
    for (int64_t c = 0; c < channels; ++c) {
        const bool take = !(x[c] <= best[c]) & (best[c] == best[c]);
        best[c] = take ? x[c] : best[c];
        if constexpr (Keep) source[c] = take ? row : source[c];
    }
}

/// feats (n_in, channels), out (n_out, channels); output rows without an input become 0.
template <typename T>
struct PoolArgs {
    const T *feats;
    T *out;
    int32_t *source;  // (n_out, channels), maximum only: the input row that won, -1 where there is none; or nullptr
    std::vector<PairList> lists;
    int64_t n_in, n_out, channels;
    int threads;
};

/// The largest input; the first of equal ones in offset order. As in torch's max pooling NaN wins over numbers.
template <typename T>
void pool_max(const PoolArgs<T> &a);

/// The sum of the inputs, in offset order.
template <typename T>
void pool_sum(const PoolArgs<T> &a);

enum class Reduction { sum, mean, first };

/// Segment s is the rows order[ptr[s]], ..., order[ptr[s + 1] - 1]. `ptr` ascends and stays inside `order`.
struct Segments {
    const int64_t *order;
    const int64_t *ptr;
    int64_t count;    // of segments
    int64_t rows;     // row numbers are below this
    int64_t channels;
    int threads;
};

/// out (count, channels) from values (rows, channels); empty segments become 0. Sums of floats are kept in double.
template <typename T>
void segment_reduce(const Segments &s, Reduction mode, const T *values, T *out);

/// The maximum, with the rules of pool_max; source (count, channels): the row that won or -1; or nullptr.
template <typename T>
void segment_max(const Segments &s, const T *values, T *out, int32_t *source);

/// The adjoint of segment_reduce: out (rows, channels) from grad (count, channels).
template <typename T>
void segment_spread(const Segments &s, Reduction mode, const T *grad, T *out);

/// The adjoint of a maximum: out[source[s, c], c] += grad[s, c] from out = 0; negative sources are skipped.
template <typename T>
void scatter_rows(const T *grad, const int32_t *source, int64_t count, int64_t rows, int64_t channels, T *out,
                  int threads);

/// Rows ptr[b], ..., ptr[b + 1] - 1 belong to sample b; `ptr` runs from 0 to the number of rows.
struct SampleRows {
    const int64_t *ptr;
    int64_t samples, channels;
    int64_t groups;  // of channels, each normalised on its own
    int threads;
};

/// out = (x - mean) * scale * weight + bias, mean and scale = 1 / sqrt(variance + eps) per sample and group (samples,
/// groups), 0 for a sample without rows. weight and bias (channels) or nullptr.
template <typename T>
void sample_norm(const SampleRows &s, const T *x, const T *weight, const T *bias, double eps, T *out, T *mean, T *scale);

/// Gradients of sample_norm for x (rows, channels), weight and bias (channels).
template <typename T>
void sample_norm_grad(const SampleRows &s, const T *grad, const T *x, const T *weight, const T *mean, const T *scale,
                      T *grad_x, T *grad_weight, T *grad_bias);

}  // namespace vision3d
