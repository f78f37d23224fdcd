// SPDX-License-Identifier: Apache-2.0
// Normalisation over the rows of a sample: statistics in one pass over fixed runs of rows, then one pass that applies
// them. Runs are added up in order, in double precision, so the result is the same for every number of threads.
#include <algorithm>
#include <cmath>
#include <vector>

#include "reduce.h"
#include "threads.h"

namespace vision3d {
namespace {

constexpr int64_t kRunRows = 512;

/// A run of rows of one sample.
struct Run {
    int64_t sample, first, last;
};

std::vector<Run> runs_of(const SampleRows &s) {
    std::vector<Run> runs;
    for (int64_t b = 0; b < s.samples; ++b)
        for (int64_t row = s.ptr[b]; row < s.ptr[b + 1]; row += kRunRows)
            runs.push_back({b, row, std::min(row + kRunRows, s.ptr[b + 1])});
    return runs;
}

/// Two sums per channel of every sample: body(row, first, second) adds one row to a run's sums.
template <typename Body>
std::vector<double> two_sums(const SampleRows &s, const std::vector<Run> &runs, const Body &body) {
    const int64_t width = 2 * s.channels;
    std::vector<double> partial(runs.size() * static_cast<size_t>(width)), total(static_cast<size_t>(s.samples * width));
    parallel_for(static_cast<int64_t>(runs.size()), s.threads, [&](int64_t i) {
        double *sums = partial.data() + i * width;
        for (int64_t row = runs[i].first; row < runs[i].last; ++row) body(runs[i].sample, row, sums, sums + s.channels);
    });
    for (size_t i = 0; i < runs.size(); ++i)
        for (int64_t j = 0; j < width; ++j) total[runs[i].sample * width + j] += partial[i * width + j];
    return total;
}

/// Mean and 1 / sqrt(variance + eps) of one group, from sums of (x - pivot) and its square per channel.
template <typename T>
void group_statistics(const SampleRows &s, int64_t b, int64_t g, const T *pivot, const double *sums, double eps, T *mean,
                      T *scale) {
    const int64_t per_group = s.channels / s.groups;
    const double n = static_cast<double>(s.ptr[b + 1] - s.ptr[b]);
    const double *squares = sums + s.channels;
    double total = 0, spread = 0;
    for (int64_t c = g * per_group; c < (g + 1) * per_group; ++c) total += pivot[c] + sums[c] / n;
    const double centre = total / static_cast<double>(per_group);
    for (int64_t c = g * per_group; c < (g + 1) * per_group; ++c) {
        const double away = pivot[c] + sums[c] / n - centre;
        spread += std::max(0.0, squares[c] - sums[c] * sums[c] / n) + n * away * away;
    }
    *mean = static_cast<T>(centre);
    *scale = static_cast<T>(1 / std::sqrt(spread / (n * static_cast<double>(per_group)) + eps));
}

}  // namespace

template <typename T>
void sample_norm(const SampleRows &s, const T *x, const T *weight, const T *bias, double eps, T *out, T *mean, T *scale) {
    const std::vector<Run> runs = runs_of(s);
    const int64_t channels = s.channels, per_group = channels / s.groups;
    // Differences from the sample's first row: squares of large values would lose the variance.
    const std::vector<double> sums = two_sums(s, runs, [&](int64_t b, int64_t row, double *first, double *second) {
        const T *value = x + row * channels, *pivot = x + s.ptr[b] * channels;
        for (int64_t c = 0; c < channels; ++c) {
            const double away = static_cast<double>(value[c]) - static_cast<double>(pivot[c]);
            first[c] += away;
            second[c] += away * away;
        }
    });
    std::fill_n(mean, s.samples * s.groups, T(0));
    std::fill_n(scale, s.samples * s.groups, T(0));
    for (int64_t b = 0; b < s.samples; ++b)
        for (int64_t g = 0; g < s.groups && s.ptr[b] < s.ptr[b + 1]; ++g)
            group_statistics(s, b, g, x + s.ptr[b] * channels, sums.data() + 2 * b * channels, eps,
                             mean + b * s.groups + g, scale + b * s.groups + g);
    parallel_for(static_cast<int64_t>(runs.size()), s.threads, [&](int64_t i) {
        std::vector<T> centre(static_cast<size_t>(channels)), factor(static_cast<size_t>(channels));
        for (int64_t c = 0; c < channels; ++c) {
            const int64_t at = runs[i].sample * s.groups + c / per_group;
            centre[c] = mean[at];
            factor[c] = weight ? scale[at] * weight[c] : scale[at];
        }
        for (int64_t row = runs[i].first; row < runs[i].last; ++row) {
            const T *from = x + row * channels;
            T *to = out + row * channels;
            for (int64_t c = 0; c < channels; ++c) to[c] = (from[c] - centre[c]) * factor[c];
            if (bias)
                for (int64_t c = 0; c < channels; ++c) to[c] += bias[c];
        }
    });
}

template <typename T>
void sample_norm_grad(const SampleRows &s, const T *grad, const T *x, const T *weight, const T *mean, const T *scale,
                      T *grad_x, T *grad_weight, T *grad_bias) {
    const std::vector<Run> runs = runs_of(s);
    const int64_t channels = s.channels, per_group = channels / s.groups;
    const auto group = [&](int64_t b, int64_t c) { return b * s.groups + c / per_group; };
    // Per channel: sum of the gradient, and of its product with the normalised value (less the common factor).
    const std::vector<double> sums = two_sums(s, runs, [&](int64_t b, int64_t row, double *first, double *second) {
        const T *g = grad + row * channels, *value = x + row * channels;
        for (int64_t h = 0; h < s.groups; ++h) {
            const double centre = mean[b * s.groups + h];
            for (int64_t c = h * per_group; c < (h + 1) * per_group; ++c) {
                first[c] += g[c];
                second[c] += static_cast<double>(g[c]) * (static_cast<double>(value[c]) - centre);
            }
        }
    });
    std::vector<double> along(static_cast<size_t>(s.samples * s.groups)), across(along.size());
    std::vector<double> weight_sum(static_cast<size_t>(channels)), bias_sum(weight_sum.size());
    for (int64_t b = 0; b < s.samples; ++b)
        for (int64_t c = 0; c < channels; ++c) {
            const double *of_sample = sums.data() + 2 * b * channels;
            const double w = weight ? weight[c] : 1, hat = of_sample[channels + c] * scale[group(b, c)];
            const double n = static_cast<double>((s.ptr[b + 1] - s.ptr[b]) * per_group);
            weight_sum[c] += hat;
            bias_sum[c] += of_sample[c];
            if (n == 0) continue;
            along[group(b, c)] += w * hat / n;
            across[group(b, c)] += w * of_sample[c] / n;
        }
    for (int64_t c = 0; c < channels; ++c) {
        grad_weight[c] = static_cast<T>(weight_sum[c]);
        grad_bias[c] = static_cast<T>(bias_sum[c]);
    }
    parallel_for(static_cast<int64_t>(runs.size()), s.threads, [&](int64_t i) {
        // grad_x = scale * (w * grad - across - hat * along), as three factors per channel.
        std::vector<T> centre(static_cast<size_t>(channels)), by_grad(centre.size()), by_x(centre.size()), shift(centre.size());
        for (int64_t c = 0; c < channels; ++c) {
            const int64_t at = group(runs[i].sample, c);
            centre[c] = mean[at];
            by_grad[c] = weight ? scale[at] * weight[c] : scale[at];
            by_x[c] = static_cast<T>(scale[at] * scale[at] * along[at]);
            shift[c] = static_cast<T>(scale[at] * across[at]);
        }
        for (int64_t row = runs[i].first; row < runs[i].last; ++row) {
            const T *g = grad + row * channels, *from = x + row * channels;
            T *to = grad_x + row * channels;
            for (int64_t c = 0; c < channels; ++c) to[c] = g[c] * by_grad[c] - shift[c] - (from[c] - centre[c]) * by_x[c];
        }
    });
}

template void sample_norm(const SampleRows &, const float *, const float *, const float *, double, float *, float *, float *);
template void sample_norm(const SampleRows &, const double *, const double *, const double *, double, double *, double *,
                          double *);
template void sample_norm_grad(const SampleRows &, const float *, const float *, const float *, const float *,
                               const float *, float *, float *, float *);
template void sample_norm_grad(const SampleRows &, const double *, const double *, const double *, const double *,
                               const double *, double *, double *, double *);

}  // namespace vision3d
