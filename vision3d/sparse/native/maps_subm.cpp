// SPDX-License-Identifier: Apache-2.0
// Submanifold maps: the set against itself, for the kernel offsets after the centre.
#include <algorithm>
#include <stdexcept>

#include "maps.h"
#include "maps_merge.h"
#include "threads.h"

namespace vision3d {
namespace {

/// Kernel offsets that differ along the last axis only, with the way from a line's key to that of the line they want.
struct OffsetRow {
    uint64_t step;
    std::vector<OffsetSpan> spans;
};

/// Rows of the offsets after the centre, without those that cannot meet anything.
std::vector<OffsetRow> offset_rows(const Layout &layout, const Geometry &g) {
    std::vector<OffsetRow> rows;
    const int64_t volume = g.volume(), last = g.axes - 1, width = g.kernel[last];
    const int64_t extent = layout.extent(static_cast<int>(last) + 1);
    for (int64_t k = volume / 2 / width * width; k < volume; k += width) {
        OffsetRow row{0, {}};
        bool inside = true;
        for (int64_t a = last - 1, rest = k / width; a >= 0; rest /= g.kernel[a--]) {
            const int64_t d = (rest % g.kernel[a] - g.kernel[a] / 2) * g.dilation[a];
            const int column = static_cast<int>(a) + 1;
            inside = inside && d < layout.extent(column) && -d < layout.extent(column);
            row.step += static_cast<uint64_t>(d) * static_cast<uint64_t>(layout.multiplier[column]);
        }
        for (int64_t j = 0; j < width && inside; ++j) {
            const int64_t shift = (j - width / 2) * g.dilation[last], list = k + j - volume / 2 - 1;
            if (list < 0 || shift >= extent || -shift >= extent) continue;
            if (!row.spans.empty() && g.dilation[last] == 1)
                ++row.spans.back().width;
            else
                row.spans.push_back({list, 1, shift});
        }
        if (!row.spans.empty()) rows.push_back(std::move(row));
    }
    return rows;
}

/// What one task knows of one row of offsets: the line it stands at, and the input row of every span.
struct Pointers {
    int64_t line;
    std::vector<int64_t> row;
};

template <typename Key>
class Merge {
  public:
    Merge(const Lines &lines, const Places<Key> &places, const std::vector<OffsetRow> &rows)
        : lines_(lines), places_(places), rows_(rows) {}

    /// Chunks [begin, end) of the outputs.
    void run(int64_t begin, int64_t end, PairChunks &chunks) const {
        Scratch scratch(chunks.lists(), chunks.chunk_rows());
        std::vector<Pointers> pointers;
        Meetings<Key> meetings(chunks.chunk_rows() + 1);
        int64_t line = std::upper_bound(lines_.first.data(), lines_.first.data() + lines_.count, chunks.begin(begin)) -
                       lines_.first.data() - 1;
        for (const OffsetRow &row : rows_) {
            const uint64_t wanted = lines_.key[line] + row.step;
            const uint64_t *found = std::lower_bound(lines_.key.data(), lines_.key.data() + lines_.count, wanted);
            pointers.push_back({found - lines_.key.data(), {}});
            for (const OffsetSpan &span : row.spans)
                pointers.back().row.push_back(*found == wanted ? start(line, pointers.back().line, span, chunks.begin(begin)) : 0);
        }
        for (int64_t c = begin; c < end; ++c) {
            scratch.clear();
            int64_t next = line;
            for (size_t r = 0; r < rows_.size(); ++r) {
                next = meet(line, chunks.begin(c), chunks.end(c), rows_[r].step, pointers[r].line, meetings);
                for (size_t s = 0; s < rows_[r].spans.size(); ++s) {
                    const OffsetSpan &span = rows_[r].spans[s];
                    int64_t &at = pointers[r].row[s];
                    at = merge_for<Key>(span.width)(places_.place.data(), places_.place.data(), meetings, span, at, scratch);
                }
            }
            line = next;
            chunks.keep(c, scratch);
        }
    }

  private:
    /// First row of line `other` for the outputs from `row` on: their line may have begun long before.
    int64_t start(int64_t line, int64_t other, const OffsetSpan &span, int64_t row) const {
        const Key wanted = static_cast<Key>(places_.place[row] + (other - line) * places_.pitch + span.shift);
        const Key *place = places_.place.data();
        return std::lower_bound(place + lines_.first[other], place + lines_.first[other + 1], wanted) - place;
    }

    /// The lines of output rows [begin, end), the first of which is `line`, that find the line they want; returns the
    /// line of row `end`.
    int64_t meet(int64_t line, int64_t begin, int64_t end, uint64_t step, int64_t &pointer, Meetings<Key> &found) const {
        const uint64_t *key = lines_.key.data();
        const int32_t *first = lines_.first.data();
        Meeting<Key> *to = found.list.data();
        int64_t p = pointer;
        while (begin < end) {
            const uint64_t wanted = key[line] + step;
            while (key[p] < wanted) ++p;
            const int64_t stop = std::min<int64_t>(end, first[line + 1]);
            *to = {begin, stop, first[p], static_cast<Key>((p - line) * places_.pitch)};
            to += key[p] == wanted;
            begin = stop;
            line += stop == first[line + 1];
        }
        pointer = p;
        found.count = to - found.list.data();
        return line;
    }

    const Lines &lines_;
    const Places<Key> &places_;
    const std::vector<OffsetRow> &rows_;
};

template <typename Key>
Map merged(const int64_t *keys, const Lines &lines, int64_t pitch, const std::vector<OffsetRow> &rows, int64_t lists,
           int threads) {
    const Places<Key> places(keys, lines, pitch, threads);
    PairChunks chunks(lists, lines.n, chunk_rows_for(lists));
    if (!rows.empty()) {
        const Merge<Key> merge(lines, places, rows);
        const Pieces pieces(chunks.chunks(), threads, 1);
        parallel_for(pieces.count, threads,
                     [&](int64_t piece) { merge.run(pieces.begin(piece), pieces.end(piece), chunks); });
    }
    return chunks.packed(lines.n, threads);
}

}  // namespace

Map submanifold_map(const int64_t *keys, int64_t n, const Layout &layout, const Geometry &geometry, int threads) {
    const int64_t lists = geometry.volume() / 2;
    const Lines lines(keys, n, layout, threads);
    const std::vector<OffsetRow> rows = n > 0 ? offset_rows(layout, geometry) : std::vector<OffsetRow>();
    // Places wanted run from 1 - extent to 2 * extent - 2, and a row of offsets looks that much further.
    const int64_t pitch = 2 * lines.extent + std::min(geometry.kernel[geometry.axes - 1], 2 * lines.extent);
    if (Places<int32_t>::fits(lines, pitch)) return merged<int32_t>(keys, lines, pitch, rows, lists, threads);
    if (Places<int64_t>::fits(lines, pitch)) return merged<int64_t>(keys, lines, pitch, rows, lists, threads);
    throw std::invalid_argument("coords have too many lines for their extent; split the cloud");
}

}  // namespace vision3d
