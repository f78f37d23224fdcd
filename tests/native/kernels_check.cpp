// SPDX-License-Identifier: Apache-2.0
// Compares the convolution kernels of every instruction set that this processor runs with plain loops in double
// precision, and the results of one and of three threads bit by bit. kernels_check.sh builds and runs it, also for
// other processors under an emulator. Prints one line per instruction set; the exit status is 1 when one is wrong.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "conv.h"

namespace {

using namespace vision3d;

std::mt19937 random_bits(7);

int64_t below(int64_t end) { return std::uniform_int_distribution<int64_t>(0, end - 1)(random_bits); }

template <typename T>
std::vector<T> values(int64_t size) {
    std::normal_distribution<double> normal;
    std::vector<T> made(static_cast<size_t>(size));
    for (T &value : made) value = static_cast<T>(normal(random_bits));
    return made;
}

/// `count` of the numbers below `end`, ascending.
std::vector<int32_t> ascending(int64_t count, int64_t end) {
    std::vector<int32_t> all(static_cast<size_t>(end));
    for (int64_t i = 0; i < end; ++i) all[i] = static_cast<int32_t>(i);
    std::shuffle(all.begin(), all.end(), random_bits);
    all.resize(static_cast<size_t>(count));
    std::sort(all.begin(), all.end());
    return all;
}

/// A map with random lists; the middle one is the identity where there are as many inputs as outputs.
struct Map {
    Map(int64_t n_in, int64_t n_out, int64_t volume) : in(volume), out(volume), block(volume), lists(volume) {
        for (int64_t k = 0; k < volume; ++k) {
            if (n_in == n_out && k == volume / 2) continue;
            const int64_t most = std::min(n_in, n_out), count = below(3) ? below(most + 1) : 0;
            in[k] = ascending(count, n_in);
            out[k] = ascending(count, n_out);
            for (int64_t row = 0; row < n_out + kBlockRows; row += kBlockRows)
                block[k].push_back(
                    static_cast<int32_t>(std::lower_bound(out[k].begin(), out[k].end(), row) - out[k].begin()));
            lists[k] = {in[k].data(), out[k].data(), block[k].data()};
        }
    }

    template <typename Visit>
    void pairs(int64_t k, int64_t n_out, const Visit &visit) const {
        if (!lists[k].block)
            for (int64_t row = 0; row < n_out; ++row) visit(row, row);
        for (size_t p = 0; p < in[k].size(); ++p) visit(in[k][p], out[k][p]);
    }

    std::vector<std::vector<int32_t>> in, out, block;
    std::vector<PairList> lists;
};

/// The largest error of a result, in units of rounding: `scale` is the sum of the absolute terms.
template <typename T>
double error(const std::vector<T> &found, const std::vector<double> &wanted, const std::vector<double> &scale) {
    double worst = 0;
    for (size_t i = 0; i < found.size(); ++i) {
        const double away = std::abs(static_cast<double>(found[i]) - wanted[i]) / (scale[i] + 1e-30);
        worst = std::isfinite(away) ? std::max(worst, away) : 1e30;
    }
    return worst;
}

struct Shape {
    int64_t n_in, n_out, volume, groups, cin, cout;
    bool bias, relu, transposed;
};

template <typename T>
double forward_error(const Shape &s, const Map &map, void (*run)(const ConvArgs<T> &), bool &steady) {
    const auto feats = values<T>(s.n_in * s.groups * s.cin), bias = values<T>(s.groups * s.cout);
    const auto weight = values<T>(s.volume * s.cin * s.groups * s.cout);
    std::vector<T> out(static_cast<size_t>(s.n_out * s.groups * s.cout), T(7)), again(out.size(), T(9));
    ConvArgs<T> a{feats.data(), weight.data(), s.bias ? bias.data() : nullptr, out.data(), map.lists, s.n_in, s.n_out,
                  s.cin, s.cout, s.groups, s.transposed, s.relu, 1};
    run(a);
    a.threads = 3;
    a.out = again.data();
    run(a);
    steady = steady && std::memcmp(out.data(), again.data(), out.size() * sizeof(T)) == 0;
    std::vector<double> wanted(out.size()), scale(out.size());
    for (size_t i = 0; i < out.size() && s.bias; ++i) {
        wanted[i] = bias[i % bias.size()];
        scale[i] = std::abs(wanted[i]);
    }
    for (int64_t k = 0; k < s.volume; ++k)
        map.pairs(k, s.n_out, [&](int64_t i, int64_t o) {
            for (int64_t g = 0; g < s.groups; ++g)
                for (int64_t c = 0; c < s.cin; ++c)
                    for (int64_t j = 0; j < s.cout; ++j) {
                        const int64_t w = s.transposed ? ((k * s.cout + j) * s.groups + g) * s.cin + c
                                                       : ((k * s.cin + c) * s.groups + g) * s.cout + j;
                        const double term = static_cast<double>(feats[(i * s.groups + g) * s.cin + c]) * weight[w];
                        wanted[(o * s.groups + g) * s.cout + j] += term;
                        scale[(o * s.groups + g) * s.cout + j] += std::abs(term);
                    }
        });
    for (double &value : wanted) value = s.relu ? std::max(value, 0.0) : value;
    return error(out, wanted, scale);
}

template <typename T>
double gradient_error(const Shape &s, const Map &map, void (*run)(const GradArgs<T> &), bool &steady) {
    const auto feats = values<T>(s.n_in * s.groups * s.cin), grad_out = values<T>(s.n_out * s.groups * s.cout);
    std::vector<T> grad(static_cast<size_t>(s.volume * s.cin * s.groups * s.cout), T(7)), again(grad.size(), T(9));
    GradArgs<T> a{feats.data(), grad_out.data(), grad.data(), map.lists, s.n_in, s.n_out, s.cin, s.cout, s.groups, 1};
    run(a);
    a.threads = 3;
    a.grad_weight = again.data();
    run(a);
    steady = steady && std::memcmp(grad.data(), again.data(), grad.size() * sizeof(T)) == 0;
    std::vector<double> wanted(grad.size()), scale(grad.size());
    for (int64_t k = 0; k < s.volume; ++k)
        map.pairs(k, s.n_out, [&](int64_t i, int64_t o) {
            for (int64_t g = 0; g < s.groups; ++g)
                for (int64_t c = 0; c < s.cin; ++c)
                    for (int64_t j = 0; j < s.cout; ++j) {
                        const double term = static_cast<double>(feats[(i * s.groups + g) * s.cin + c]) *
                                            grad_out[(o * s.groups + g) * s.cout + j];
                        wanted[((k * s.cin + c) * s.groups + g) * s.cout + j] += term;
                        scale[((k * s.cin + c) * s.groups + g) * s.cout + j] += std::abs(term);
                    }
        });
    return error(grad, wanted, scale);
}

/// The largest errors of one level over all shapes; single and double precision.
struct Errors {
    double single = 0, twice = 0;
    int cases = 0;
    bool steady = true;

    void take(const Shape &s, const ConvKernels &kernels) {
        const Map map(s.n_in, s.n_out, s.volume);
        const bool depthwise = s.cin == 1 && s.cout == 1;
        const auto forward_f32 = depthwise ? kernels.depthwise_f32 : kernels.forward_f32;
        const auto forward_f64 = depthwise ? kernels.depthwise_f64 : kernels.forward_f64;
        single = std::max(single, forward_error(s, map, forward_f32, steady));
        twice = std::max(twice, forward_error(s, map, forward_f64, steady));
        const auto gradient_f32 = depthwise ? kernels.depthwise_gradient_f32 : kernels.gradient_f32;
        const auto gradient_f64 = depthwise ? kernels.depthwise_gradient_f64 : kernels.gradient_f64;
        single = std::max(single, gradient_error(s, map, gradient_f32, steady));
        twice = std::max(twice, gradient_error(s, map, gradient_f64, steady));
        cases += 4;
    }
};

}  // namespace

int main() {
    bool right = true;
    for (const ConvKernels *kernels : kernel_levels()) {
        Errors errors;
        // Every height of a tile and every rest of a vector, in and out.
        for (int64_t channels = 1; channels <= 34; ++channels)
            errors.take({70, 70, 3, 1, channels, 1 + below(34), true, false, channels % 2 == 0}, *kernels);
        for (int64_t rows : {1, 2, 5, 63, 64, 65, 129, 700, 1500}) {
            const int64_t rows_out = rows + below(2) * below(rows), volume = 1 + 2 * below(3);
            errors.take({rows, rows_out, volume, 1, 16, 32, rows % 2 == 0, true, false}, *kernels);
        }
        for (int64_t groups : {2, 3, 7})
            errors.take({130, 200, 4, groups, 1 + below(9), 1 + below(20), true, true, groups == 3}, *kernels);
        for (int64_t channels : {1, 3, 4, 8, 15, 16, 17, 31, 64, 100})
            errors.take({300, 300, 5, channels, 1, 1, channels % 2 == 1, channels % 3 == 0, false}, *kernels);
        const bool fine = errors.single < 1e-5 && errors.twice < 1e-13 && errors.steady;
        right = right && fine;
        std::printf("%s: %d cases, largest error %.1e in float, %.1e in double, threads %s: %s\n", kernels->isa,
                    errors.cases, errors.single, errors.twice, errors.steady ? "agree" : "differ",
                    fine ? "right" : "WRONG");
    }
    return right ? 0 : 1;
}
