// SPDX-License-Identifier: Apache-2.0
// The merge at the heart of every kernel map. The places that the outputs want ascend with the output row, as the
// places of the inputs do, so a pointer that only moves forward finds them. Places are unsigned numbers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "buffer.h"
#include "maps.h"

namespace vision3d {

/// Pairs of a chunk, input row << 32 | output row: list l begins at pair[l * stride], end[l] is behind its last one.
struct Scratch {
    int64_t stride;
    Buffer<uint64_t> pair;
    std::vector<int64_t> end;

    /// One word more per list than it has pairs: `merge` writes ahead.
    Scratch(int64_t lists, int64_t chunk_rows)
        : stride(chunk_rows + 1), pair(lists * stride), end(static_cast<size_t>(lists)) {}

    void clear() {
        for (size_t l = 0; l < end.size(); ++l) end[l] = static_cast<int64_t>(l) * stride;
    }
};

constexpr int64_t kAhead = 3;  // places behind the last input that a merge may look at

/// Places that output rows want, from row `first` on.
template <typename Key>
struct Targets {
    const Key *data;
    int64_t first;

    Key of(int64_t row) const { return data[row - first]; }
};

/// Output rows [begin, end) want places target.of(row) + shift, at input rows not before `first`.
template <typename Key>
struct Meeting {
    int64_t begin, end, first;
    Key shift;
};

/// Ascending in their rows.
template <typename Key>
struct Meetings {
    int64_t count = 0;
    Buffer<Meeting<Key>> list;

    explicit Meetings(int64_t most) : list(most) {}
    const Meeting<Key> *begin() const { return list.data(); }
    const Meeting<Key> *end() const { return list.data() + count; }
};

/// Neighbouring kernel offsets: list + j wants the place at shift + j, j = 0 .. width - 1.
struct OffsetSpan {
    int64_t list, width, shift;
};

/// A span of W offsets, from input row p on; returns where this pointer stands. What is found is written without a
/// branch: a word that is no pair is overwritten by the next.
template <typename Key, int W>
int64_t merge(const Key *place, Targets<Key> target, const Meetings<Key> &meetings, const OffsetSpan &span, int64_t p,
              Scratch &to) {
    uint64_t *last[W];
    for (int j = 0; j < W; ++j) last[j] = to.pair.data() + to.end[span.list + j];
    for (const Meeting<Key> &m : meetings) {
        const Key shift = m.shift + static_cast<Key>(span.shift);
        p = std::max(p, m.first);
        for (int64_t i = m.begin; i < m.end; ++i) {
            const Key wanted = target.of(i) + shift;
            while (place[p] < wanted) ++p;
            Key d[W];
            for (int j = 0; j < W; ++j) d[j] = place[p + j] - wanted;
            uint64_t word = static_cast<uint64_t>(p) << 32 | static_cast<uint64_t>(i);
            for (int j = 0; j < W; ++j) {
                uint64_t hit = 0;  // whether offset j has a neighbour; those before it took their places
                for (int before = 0; before <= j; ++before) hit |= d[before] == static_cast<Key>(j);
                *last[j] = word;
                last[j] += hit;
                word += hit << 32;
            }
        }
    }
    for (int j = 0; j < W; ++j) to.end[span.list + j] = last[j] - to.pair.data();
    return p;
}

/// Any width: visits the inputs that are there, which are few when the row of offsets is wide.
template <typename Key>
int64_t merge_wide(const Key *place, Targets<Key> target, const Meetings<Key> &meetings, const OffsetSpan &span,
                   int64_t p, Scratch &to) {
    const Key width = static_cast<Key>(span.width);
    uint64_t *pair = to.pair.data();
    int64_t *end = to.end.data() + span.list;
    for (const Meeting<Key> &m : meetings) {
        const Key shift = m.shift + static_cast<Key>(span.shift);
        const int64_t stop = m.end;
        p = std::max(p, m.first);
        for (int64_t i = m.begin; i < stop; ++i) {
            const Key wanted = target.of(i) + shift;
            while (place[p] < wanted) ++p;
            for (int64_t q = p; place[q] - wanted < width; ++q)
                pair[end[place[q] - wanted]++] = static_cast<uint64_t>(q) << 32 | static_cast<uint64_t>(i);
        }
    }
    return p;
}

template <typename Key>
auto merge_for(int64_t width) {
    return width == 1 ? merge<Key, 1> : width == 2 ? merge<Key, 2> : width == 3 ? merge<Key, 3> : merge_wide<Key>;
}

/// Rows of one chunk: enough to pay for its start, few enough for its pairs to stay in the second-level cache.
inline int64_t chunk_rows_for(int64_t lists) {
    return std::max<int64_t>(kBlock, (1 << 15) / std::max<int64_t>(1, lists) / kBlock * kBlock);
}

}  // namespace vision3d
