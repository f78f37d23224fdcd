// SPDX-License-Identifier: Apache-2.0
// Submanifold maps by merging. For one row of kernel offsets (all that differ along the last axis only) the target key
// of row i grows with i, so one pointer that only moves forward finds every neighbour.
#include <algorithm>
#include <limits>
#include <stdexcept>

#include "maps.h"
#include "threads.h"

namespace vision3d {
namespace {

/// Neighbouring kernel offsets: list `list + j` looks for key + step + j, j = 0 .. width - 1.
struct OffsetRow {
    int64_t list, width;
    uint64_t step;
};

/// Rows of offsets after the centre that can meet anything at all.
std::vector<OffsetRow> offset_rows(const Layout &layout, const Geometry &g) {
    std::vector<OffsetRow> rows;
    const int64_t volume = g.volume(), last = g.axes - 1, kx = g.kernel[last];
    for (int64_t k = volume / 2 / kx * kx; k < volume; k += kx) {
        // Places of the row's first offset; the last axis is handled apart.
        bool inside = true;
        uint64_t step = 0;
        for (int64_t a = last - 1, rest = k / kx; a >= 0; --a) {
            const int64_t d = (rest % g.kernel[a] - g.kernel[a] / 2) * g.dilation[a];
            rest /= g.kernel[a];
            const int column = static_cast<int>(a) + 1;
            inside = inside && d < layout.extent(column) && -d < layout.extent(column);
            step += static_cast<uint64_t>(d) * static_cast<uint64_t>(layout.multiplier[column]);
        }
        if (!inside) continue;
        const int64_t extent = layout.extent(static_cast<int>(last) + 1);
        bool open = false;  // the previous offset is the left neighbour of this one
        for (int64_t j = 0; j < kx; ++j) {
            const int64_t d = (j - kx / 2) * g.dilation[last], list = k + j - volume / 2 - 1;
            if (list < 0 || d >= extent || -d >= extent) continue;
            if (open && g.dilation[last] == 1)
                ++rows.back().width;
            else
                rows.push_back({list, 1, step + static_cast<uint64_t>(d)});
            open = true;
        }
    }
    return rows;
}

/// Keys counted from the first one, with room for a look ahead behind the last.
template <typename Key>
struct Stream {
    Buffer<Key> key;
    int64_t n;
};

constexpr int64_t kAhead = 3;

template <typename Key>
Stream<Key> stream_of(const int64_t *keys, int64_t n, int threads) {
    Stream<Key> s{Buffer<Key>(n + kAhead), n};
    const Pieces pieces(n, threads, 1 << 15);
    parallel_for(pieces.count, threads, [&](int64_t p) {
        uint64_t descents = 0;
        for (int64_t i = pieces.begin(p); i < pieces.end(p); ++i) {
            descents |= static_cast<uint64_t>(keys[i] <= (i > 0 ? keys[i - 1] : -1));
            s.key[i] = static_cast<Key>(static_cast<uint64_t>(keys[i]) - static_cast<uint64_t>(keys[0]));
        }
        if (descents) throw std::invalid_argument("keys must not be negative and must ascend strictly");
    });
    std::fill_n(s.key.data() + n, kAhead, std::numeric_limits<Key>::max());
    return s;
}

/// Pairs of a chunk: list l begins at pair[l * stride], end[l] is behind its last one. Input row above, output row below.
struct Scratch {
    int64_t stride;
    Buffer<uint64_t> pair;
    std::vector<int64_t> end;
};

/// A chunk of outputs against W neighbouring offsets, from place p on; returns where the pointer stands. What is found is
/// written without a branch: a word that is no pair is overwritten by the next.
template <typename Key, int W>
int64_t merge(const Stream<Key> &s, const OffsetRow &row, int64_t begin, int64_t end, int64_t p, Scratch &to) {
    const Key *key = s.key.data();
    const Key step = static_cast<Key>(row.step);
    uint64_t *last[W];
    for (int j = 0; j < W; ++j) last[j] = to.pair.data() + (row.list + j) * to.stride;
    for (int64_t i = begin; i < end; ++i) {
        const Key target = key[i] + step;
        while (key[p] < target) ++p;
        Key d[W];
        for (int j = 0; j < W; ++j) d[j] = key[p + j] - target;
        uint64_t word = static_cast<uint64_t>(p) << 32 | static_cast<uint64_t>(i);
        for (int j = 0; j < W; ++j) {
            uint64_t hit = 0;  // whether offset j has a neighbour; those before it took their places
            for (int before = 0; before <= j; ++before) hit |= d[before] == static_cast<Key>(j);
            *last[j] = word;
            last[j] += hit;
            word += hit << 32;
        }
    }
    for (int j = 0; j < W; ++j) to.end[row.list + j] = last[j] - to.pair.data();
    return p;
}

/// Any number of neighbouring offsets: visits the keys that are there, which are few when the row is wide.
template <typename Key>
int64_t merge_wide(const Stream<Key> &s, const OffsetRow &row, int64_t begin, int64_t end, int64_t p, Scratch &to) {
    const Key *key = s.key.data();
    const Key step = static_cast<Key>(row.step), width = static_cast<Key>(row.width);
    for (int64_t i = begin; i < end; ++i) {
        const Key target = key[i] + step;
        while (key[p] < target) ++p;
        for (int64_t q = p; key[q] - target < width; ++q)
            to.pair[to.end[row.list + static_cast<int64_t>(key[q] - target)]++] =
                static_cast<uint64_t>(q) << 32 | static_cast<uint64_t>(i);
    }
    return p;
}

template <typename Key>
auto merge_for(int64_t width) {
    return width == 1 ? merge<Key, 1> : width == 2 ? merge<Key, 2> : width == 3 ? merge<Key, 3> : merge_wide<Key>;
}

template <typename Key>
Map merged(const int64_t *keys, int64_t n, const std::vector<OffsetRow> &rows, int64_t lists, int threads) {
    const Stream<Key> s = stream_of<Key>(keys, n, threads);
    const int64_t chunk_rows = std::max<int64_t>(kBlock, (1 << 15) / std::max<int64_t>(1, lists) / kBlock * kBlock);
    PairChunks chunks(lists, n, chunk_rows);
    const Pieces pieces(chunks.chunks(), threads, 1);
    parallel_for(pieces.count, threads, [&](int64_t piece) {
        Scratch to{chunk_rows + 1, {}, std::vector<int64_t>(static_cast<size_t>(lists), 0)};
        to.pair = Buffer<uint64_t>(lists * to.stride);
        std::vector<int64_t> at(rows.size());
        const int64_t first = chunks.begin(pieces.begin(piece));
        for (size_t r = 0; r < rows.size(); ++r) {
            const Key target = static_cast<Key>(s.key[first] + static_cast<Key>(rows[r].step));
            at[r] = std::lower_bound(s.key.data(), s.key.data() + n, target) - s.key.data();
        }
        for (int64_t c = pieces.begin(piece); c < pieces.end(piece); ++c) {
            for (int64_t l = 0; l < lists; ++l) to.end[l] = l * to.stride;
            for (size_t r = 0; r < rows.size(); ++r)
                at[r] = merge_for<Key>(rows[r].width)(s, rows[r], chunks.begin(c), chunks.end(c), at[r], to);
            chunks.keep(c, to.end.data(), to.pair.data(), to.stride);
        }
    });
    return chunks.packed(n, threads);
}

}  // namespace

Map submanifold_map(const int64_t *keys, int64_t n, const Layout &layout, const Geometry &geometry, int threads) {
    const int64_t lists = geometry.volume() / 2;
    const std::vector<OffsetRow> rows = n > 0 ? offset_rows(layout, geometry) : std::vector<OffsetRow>();
    uint64_t reach = n > 0 ? static_cast<uint64_t>(keys[n - 1]) - static_cast<uint64_t>(keys[0]) : 0;
    uint64_t furthest = 0;
    for (const OffsetRow &row : rows) furthest = std::max(furthest, row.step + static_cast<uint64_t>(row.width));
    if (reach < UINT32_MAX - 8 && furthest < UINT32_MAX - 8 - reach) return merged<uint32_t>(keys, n, rows, lists, threads);
    return merged<uint64_t>(keys, n, rows, lists, threads);
}

}  // namespace vision3d
