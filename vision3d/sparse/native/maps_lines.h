// SPDX-License-Identifier: Apache-2.0
// A sorted set as lines along its last axis. Most neighbouring lines of a sparse cloud are empty: finding that out once
// per line is cheaper than once per row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "buffer.h"
#include "keys.h"
#include "maps_merge.h"
#include "threads.h"

namespace vision3d {

/// Lines of equal coordinates but for the last one.
struct Lines {
    int64_t n = 0, count = 0;
    int64_t extent = 1;      // of the last axis
    Buffer<uint64_t> key;    // (count + 1) key of the line's first place; the last entry is larger than any
    Buffer<int32_t> first;   // (count + 1) first row

    /// Throws std::invalid_argument unless the keys ascend.
    Lines(const int64_t *keys, int64_t rows, const Layout &layout, int threads) : n(rows) {
        const int last = layout.columns - 1;
        const uint64_t places = static_cast<uint64_t>(layout.places(last));
        extent = layout.extent(last);
        const Pieces pieces(n, threads, 1 << 14);
        std::vector<std::vector<std::pair<uint64_t, int32_t>>> found(static_cast<size_t>(pieces.count));
        parallel_for(pieces.count, threads, [&](int64_t p) {
            const int64_t begin = pieces.begin(p), end = pieces.end(p);
            uint64_t before = begin > 0 ? static_cast<uint64_t>(keys[begin - 1]) : 0;
            uint64_t line = before - before % places;
            bool bad = keys[begin] < 0;
            for (int64_t i = begin; i < end; ++i) {
                const uint64_t key = static_cast<uint64_t>(keys[i]);
                bad |= key <= before && i > 0;
                if (key - line >= places || i == 0) {
                    line = key - key % places;
                    found[p].emplace_back(line, static_cast<int32_t>(i));
                }
                before = key;
            }
            if (bad || keys[end - 1] < 0)
                throw std::invalid_argument("keys must not be negative and must ascend strictly");
        });
        for (const auto &piece : found) count += static_cast<int64_t>(piece.size());
        key = Buffer<uint64_t>(count + 1);
        first = Buffer<int32_t>(count + 1);
        int64_t at = 0;
        for (const auto &piece : found)
            for (const auto &[line, row] : piece) {
                key[at] = line;
                first[at++] = row;
            }
        key[count] = std::numeric_limits<uint64_t>::max();
        first[count] = static_cast<int32_t>(n);
    }
};

/// Inputs counted along all lines laid end to end, with gaps so wide that no kernel reaches from one line into another.
template <typename Key>
struct Places {
    int64_t margin, pitch;  // before the first place of a line; from line to line
    Buffer<Key> place;      // (n + kAhead), the last ones larger than any

    Places(const int64_t *keys, const Lines &lines, int64_t width, int threads)
        : margin(width), pitch(pitch_for(lines, width)), place(lines.n + kAhead) {
        const Pieces pieces(lines.count, threads, 1 << 11);
        parallel_for(pieces.count, threads, [&](int64_t p) {
            for (int64_t l = pieces.begin(p); l < pieces.end(p); ++l) {
                const uint64_t shift = static_cast<uint64_t>(start(l)) - lines.key[l];
                for (int64_t i = lines.first[l]; i < lines.first[l + 1]; ++i)
                    place[i] = static_cast<Key>(static_cast<uint64_t>(keys[i]) + shift);
            }
        });
        std::fill_n(place.data() + lines.n, kAhead, std::numeric_limits<Key>::max());
    }

    int64_t start(int64_t line) const { return margin + line * pitch; }

    /// Places wanted run from -width to extent, and a span looks width further.
    static int64_t pitch_for(const Lines &lines, int64_t width) { return lines.extent + 2 * width + 2; }

    /// Whether all places and those wanted have room in the type.
    static bool fits(const Lines &lines, int64_t width) {
        constexpr uint64_t most = std::numeric_limits<Key>::max() / 2;
        return static_cast<uint64_t>(lines.count) + 2 < most / static_cast<uint64_t>(pitch_for(lines, width));
    }
};

}  // namespace vision3d
