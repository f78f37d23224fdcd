// SPDX-License-Identifier: Apache-2.0
// What the convolution kernels of every instruction set share: their arguments and their table of entry points.
#pragma once

#include <cstdint>
#include <vector>

namespace vision3d {

constexpr int64_t kBlockRows = 64;         // rows per entry of a block table
constexpr int64_t kGradientChunks = 8;     // partial sums of a weight gradient, whatever the number of threads

/// The pairs of one kernel offset, ascending in the output row. block == nullptr: the identity.
struct PairList {
    const int32_t *in = nullptr;
    const int32_t *out = nullptr;
    const int32_t *block = nullptr;  // block[b]: number of pairs whose output row is below 64 * b
};

/// One call. Rows are dense: feats (n_in, groups * cin), out (n_out, groups * cout).
template <typename T>
struct ConvArgs {
    const T *feats;
    const T *weight;  // (K, cin, groups * cout), or (K, groups' cout, cin) when transposed: see pack_weights
    const T *bias;    // (groups * cout) or nullptr
    T *out;
    std::vector<PairList> lists;
    int64_t n_in, n_out;
    int64_t cin, cout;  // per group
    int64_t groups;
    bool transpose_weight;
    bool relu;
    int threads;
};

/// grad (K, cin, groups * cout) = sum over pairs of feats[in]^T out[out].
template <typename T>
struct GradArgs {
    const T *feats;
    const T *grad_out;
    T *grad_weight;
    std::vector<PairList> lists;
    int64_t n_in, n_out;
    int64_t cin, cout, groups;
    int threads;
};

/// Entry points of one instruction set. Row numbers are checked as they are used; a bad one throws std::out_of_range.
struct ConvKernels {
    const char *isa;
    void (*forward_f32)(const ConvArgs<float> &);
    void (*forward_f64)(const ConvArgs<double> &);
    void (*gradient_f32)(const GradArgs<float> &);
    void (*gradient_f64)(const GradArgs<double> &);
    void (*depthwise_f32)(const ConvArgs<float> &);
    void (*depthwise_f64)(const ConvArgs<double> &);
    void (*depthwise_gradient_f32)(const GradArgs<float> &);
    void (*depthwise_gradient_f64)(const GradArgs<double> &);
};

/// The builds of the kernels that this processor runs, the plain one first and the best last.
std::vector<const ConvKernels *> kernel_levels();

/// The kernels in use: the best this processor runs, or those that VISION3D_CPU_ISA names.
const ConvKernels &conv_kernels();

/// Throws unless every row number of pairs [begin, end) is in range.
inline bool rows_in_range(const int32_t *rows, int64_t count, uint32_t first, uint32_t size) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < count; ++i) bad |= static_cast<uint32_t>(rows[i]) - first >= size;
    return bad == 0;
}

}  // namespace vision3d
