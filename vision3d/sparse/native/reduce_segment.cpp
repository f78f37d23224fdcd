// SPDX-License-Identifier: Apache-2.0
// Reductions over segments of rows. Work is split by segment and, where segments are few, by channel.
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "reduce.h"
#include "threads.h"

namespace vision3d {
namespace {

constexpr int64_t kTaskValues = 1 << 16;  // values one task reads, about
constexpr int64_t kTileChannels = 16;     // one cache line of floats

struct Span {
    int64_t first, last;    // segments
    int64_t begin, width;   // channels
};

/// The first segment whose rows and segments before it number at least `work`.
int64_t segment_at(const Segments &s, int64_t work) {
    int64_t low = 0, high = s.count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (s.ptr[middle] - s.ptr[0] + middle < work)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/// body(span) over all segments and channels, in tasks of about equal work that depend on the input alone.
template <typename Body>
void over_segments(const Segments &s, int threads, const Body &body) {
    if (s.count == 0 || s.channels == 0) return;
    const int64_t width = s.count < 64 ? std::min(kTileChannels, s.channels) : s.channels;
    const int64_t tiles = (s.channels + width - 1) / width;
    const int64_t work = s.ptr[s.count] - s.ptr[0] + s.count;
    const int64_t grain = std::max<int64_t>(64, kTaskValues / width);
    const int64_t ranges = (work + grain - 1) / grain;
    parallel_for(ranges * tiles, threads, [&](int64_t task) {
        const int64_t range = task / tiles, begin = task % tiles * width;
        const int64_t first = segment_at(s, range * grain);
        const int64_t last = range + 1 == ranges ? s.count : segment_at(s, (range + 1) * grain);
        if (first < last) body(Span{first, last, begin, std::min(width, s.channels - begin)});
    });
}

int64_t checked(int64_t row, int64_t rows) {
    if (static_cast<uint64_t>(row) >= static_cast<uint64_t>(rows))
        throw std::out_of_range("segments: a row number in order is out of range");
    return row;
}

/// Whether no row is named twice; then segments write to rows of their own.
bool distinct(const Segments &s) {
    std::vector<uint64_t> seen(static_cast<size_t>((s.rows + 63) / 64));
    bool twice = false;
    for (int64_t p = s.ptr[0]; p < s.ptr[s.count]; ++p) {
        const int64_t row = checked(s.order[p], s.rows);
        const uint64_t bit = uint64_t(1) << (row % 64);
        twice |= (seen[row / 64] & bit) != 0;
        seen[row / 64] |= bit;
    }
    return !twice;
}

template <typename T>
void clear(T *out, int64_t size, int threads) {
    constexpr int64_t chunk = 1 << 18;
    parallel_for((size + chunk - 1) / chunk, threads,
                 [&](int64_t task) { std::fill_n(out + task * chunk, std::min(chunk, size - task * chunk), T(0)); });
}

template <typename T, bool Keep>
void max_of_segments(const Segments &s, const Span &span, const T *values, T *out, int32_t *source) {
    for (int64_t segment = span.first; segment < span.last; ++segment) {
        T *best = out + segment * s.channels + span.begin;
        int32_t *from = Keep ? source + segment * s.channels + span.begin : nullptr;
        const int64_t begin = s.ptr[segment], end = s.ptr[segment + 1];
        if (begin == end) {
            std::fill_n(best, span.width, T(0));
            if constexpr (Keep) std::fill_n(from, span.width, -1);
        }
        for (int64_t p = begin; p < end; ++p) {
            const int64_t row = checked(s.order[p], s.rows);
            const T *x = values + row * s.channels + span.begin;
            if (p > begin) {
                take_larger<T, Keep>(span.width, x, static_cast<int32_t>(row), best, from);
                continue;
            }
            std::copy_n(x, span.width, best);
            if constexpr (Keep) std::fill_n(from, span.width, static_cast<int32_t>(row));
        }
    }
}

}  // namespace

template <typename T>
void segment_reduce(const Segments &s, Reduction mode, const T *values, T *out) {
    over_segments(s, s.threads, [&](const Span &span) {
        std::vector<double> sum(static_cast<size_t>(span.width));
        for (int64_t segment = span.first; segment < span.last; ++segment) {
            const int64_t begin = s.ptr[segment], count = s.ptr[segment + 1] - begin;
            T *to = out + segment * s.channels + span.begin;
            const auto row = [&](int64_t p) {
                return values + checked(s.order[begin + p], s.rows) * s.channels + span.begin;
            };
            if (count == 0) {
                std::fill_n(to, span.width, T(0));
                continue;
            }
            if (count == 1 || mode == Reduction::first) {
                std::copy_n(row(0), span.width, to);
                continue;
            }
            std::copy_n(row(0), span.width, sum.begin());
            for (int64_t p = 1; p < count; ++p) {
                const T *x = row(p);
                for (int64_t c = 0; c < span.width; ++c) sum[c] += static_cast<double>(x[c]);
            }
            const double divisor = mode == Reduction::mean ? static_cast<double>(count) : 1.0;
            for (int64_t c = 0; c < span.width; ++c) to[c] = static_cast<T>(sum[c] / divisor);
        }
    });
}

template <typename T>
void segment_max(const Segments &s, const T *values, T *out, int32_t *source) {
    over_segments(s, s.threads, [&](const Span &span) {
        if (source)
            max_of_segments<T, true>(s, span, values, out, source);
        else
            max_of_segments<T, false>(s, span, values, out, nullptr);
    });
}

template <typename T>
void segment_spread(const Segments &s, Reduction mode, const T *grad, T *out) {
    clear(out, s.rows * s.channels, s.threads);
    over_segments(s, distinct(s) ? s.threads : 1, [&](const Span &span) {
        for (int64_t segment = span.first; segment < span.last; ++segment) {
            const int64_t begin = s.ptr[segment], count = s.ptr[segment + 1] - begin;
            const T *from = grad + segment * s.channels + span.begin;
            const T divisor = mode == Reduction::mean ? static_cast<T>(count) : T(1);
            const int64_t rows = mode == Reduction::first ? std::min<int64_t>(count, 1) : count;
            for (int64_t p = 0; p < rows; ++p) {
                T *to = out + s.order[begin + p] * s.channels + span.begin;
                for (int64_t c = 0; c < span.width; ++c) to[c] += from[c] / divisor;
            }
        }
    });
}

template <typename T>
void scatter_rows(const T *grad, const int32_t *source, int64_t count, int64_t rows, int64_t channels, T *out,
                  int threads) {
    clear(out, rows * channels, threads);
    // Each task owns columns, so sums run down the segments whatever the number of tasks.
    const int64_t width = std::max<int64_t>(1, (channels + threads - 1) / threads);
    parallel_for((channels + width - 1) / width, threads, [&](int64_t task) {
        const int64_t begin = task * width, end = std::min(channels, begin + width);
        for (int64_t segment = 0; segment < count; ++segment)
            for (int64_t c = begin; c < end; ++c) {
                const int64_t row = source[segment * channels + c];
                if (row >= 0) out[checked(row, rows) * channels + c] += grad[segment * channels + c];
            }
    });
}

template void segment_reduce(const Segments &, Reduction, const float *, float *);
template void segment_reduce(const Segments &, Reduction, const double *, double *);
template void segment_max(const Segments &, const float *, float *, int32_t *);
template void segment_max(const Segments &, const double *, double *, int32_t *);
template void segment_spread(const Segments &, Reduction, const float *, float *);
template void segment_spread(const Segments &, Reduction, const double *, double *);
template void scatter_rows(const float *, const int32_t *, int64_t, int64_t, int64_t, float *, int);
template void scatter_rows(const double *, const int32_t *, int64_t, int64_t, int64_t, double *, int);

}  // namespace vision3d
