// SPDX-License-Identifier: Apache-2.0
// Submanifold maps: the set against itself, for the kernel offsets after the centre. The guard of the keys makes the
// way to a neighbour one number, whatever line the row is in.
#include <algorithm>
#include <limits>
#include <stdexcept>

#include "maps.h"
#include "maps_merge.h"
#include "threads.h"

namespace vision3d {
namespace {

/// Spans of the offsets after the centre, without those that cannot meet anything.
std::vector<OffsetSpan> offset_spans(const Layout &layout, const Geometry &g) {
    std::vector<OffsetSpan> spans;
    const int64_t volume = g.volume(), last = g.axes - 1, width = g.kernel[last];
    const int64_t extent = layout.extent(static_cast<int>(last) + 1);
    for (int64_t k = volume / 2 / width * width; k < volume; k += width) {
        int64_t step = 0;
        bool inside = true;
        for (int64_t a = last - 1, rest = k / width; a >= 0; rest /= g.kernel[a--]) {
            const int64_t d = (rest % g.kernel[a] - g.kernel[a] / 2) * g.dilation[a];
            const int column = static_cast<int>(a) + 1;
            inside = inside && d < layout.extent(column) && -d < layout.extent(column);
            if (inside) step += d * layout.multiplier[column];
        }
        bool open = false;  // whether the offset before this one has a span
        for (int64_t j = 0; j < width && inside; ++j) {
            const int64_t d = (j - width / 2) * g.dilation[last], list = k + j - volume / 2 - 1;
            if (list < 0 || d >= extent || -d >= extent) continue;
            if (open && g.dilation[last] == 1)
                ++spans.back().width;
            else
                spans.push_back({list, 1, step + d});
            open = true;
        }
    }
    return spans;
}

/// Keys counted from the first one; behind them, values that are larger than any.
template <typename Key>
Buffer<Key> places_of(const int64_t *keys, int64_t n, int threads) {
    Buffer<Key> places(n + kAhead);
    const Pieces pieces(n, threads, 1 << 15);
    parallel_for(pieces.count, threads, [&](int64_t p) {
        const int64_t begin = pieces.begin(p), end = pieces.end(p);
        bool bad = keys[begin] <= (begin > 0 ? keys[begin - 1] : -1);
        for (int64_t i = begin + 1; i < end; ++i) bad |= keys[i] <= keys[i - 1];
        if (bad) throw std::invalid_argument("keys must not be negative and must ascend strictly");
        const uint64_t origin = static_cast<uint64_t>(keys[0]);  // unsigned: later pieces may hold anything still
        for (int64_t i = begin; i < end; ++i) places[i] = static_cast<Key>(static_cast<uint64_t>(keys[i]) - origin);
    });
    std::fill_n(places.data() + n, kAhead, std::numeric_limits<Key>::max());
    return places;
}

template <typename Key>
Map merged(const int64_t *keys, int64_t n, const std::vector<OffsetSpan> &spans, int64_t lists, int threads) {
    const Buffer<Key> places = places_of<Key>(keys, n, threads);
    const Key *place = places.data();
    PairChunks chunks(lists, n, chunk_rows_for(lists));
    const Pieces pieces(chunks.chunks(), threads, 1);
    parallel_for(spans.empty() ? 0 : pieces.count, threads, [&](int64_t piece) {
        Scratch scratch(lists, chunks.chunk_rows());
        Meetings<Key> all(1);
        all.count = 1;
        std::vector<int64_t> pointers;
        const Key first = place[chunks.begin(pieces.begin(piece))];
        for (const OffsetSpan &span : spans) {
            const Key wanted = static_cast<Key>(first + static_cast<Key>(span.shift));
            pointers.push_back(std::lower_bound(place, place + n, wanted) - place);
        }
        for (int64_t c = pieces.begin(piece); c < pieces.end(piece); ++c) {
            scratch.clear();
            all.list[0] = {chunks.begin(c), chunks.end(c), 0, 0};
            for (size_t s = 0; s < spans.size(); ++s)
                pointers[s] = merge_for<Key>(spans[s].width)(place, {place, 0}, all, spans[s], pointers[s], scratch);
            chunks.keep(c, scratch);
        }
    });
    return chunks.packed(n, threads);
}

}  // namespace

Map submanifold_map(const int64_t *keys, int64_t n, const Layout &layout, const Geometry &geometry, int threads) {
    const int64_t lists = geometry.volume() / 2;
    const std::vector<OffsetSpan> spans = n > 0 ? offset_spans(layout, geometry) : std::vector<OffsetSpan>();
    const uint64_t reach = n > 0 ? static_cast<uint64_t>(keys[n - 1]) - static_cast<uint64_t>(keys[0]) : 0;
    uint64_t furthest = 0;
    for (const OffsetSpan &span : spans) furthest = std::max(furthest, static_cast<uint64_t>(span.shift + span.width));
    if (reach < UINT32_MAX && furthest < UINT32_MAX - reach)
        return merged<uint32_t>(keys, n, spans, lists, threads);
    return merged<uint64_t>(keys, n, spans, lists, threads);
}

}  // namespace vision3d
