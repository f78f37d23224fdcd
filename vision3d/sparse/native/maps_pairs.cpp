// SPDX-License-Identifier: Apache-2.0
// Maps between two sorted sets. For one row of kernel offsets the inputs wanted ascend with the output row, so one
// pointer that only moves forward finds them, line of outputs after line.
#include <algorithm>
#include <stdexcept>

#include "maps.h"
#include "threads.h"

namespace vision3d {
namespace {

/// Kernel offsets that differ along the last axis only: lists list .. list + width - 1.
struct OffsetRow {
    int64_t list, width;
    Axes shift;  // k * dilation - padding of the first offset
};

std::vector<OffsetRow> offset_rows(const Geometry &g) {
    std::vector<OffsetRow> rows;
    const int64_t volume = g.volume(), last = g.axes - 1;
    const int64_t width = g.dilation[last] == 1 ? g.kernel[last] : 1;
    for (int64_t k = 0; k < volume; k += width) {
        OffsetRow row{k, width, {}};
        for (int64_t a = last, rest = k; a >= 0; rest /= g.kernel[a--])
            row.shift[a] = rest % g.kernel[a] * g.dilation[a] - g.padding[a];
        rows.push_back(row);
    }
    return rows;
}

/// Output rows that differ along the last axis only.
struct Line {
    int64_t begin, end;
};

struct Merge {
    const int64_t *keys;
    int64_t n_in, last_batch;
    const Layout &layout;
    const Rows &out;
    const Geometry &geometry;

    bool ascends(int64_t row) const {
        const int32_t *a = out.data + (row - 1) * out.columns, *b = a + out.columns;
        return std::lexicographical_compare(a, b, b, b + out.columns);
    }

    void lines_of(int64_t begin, int64_t end, std::vector<Line> &lines) const {
        lines.clear();
        for (int64_t i = begin; i < end; ++i) {
            const int32_t *site = out.data + i * out.columns;
            if (i > 0 && !ascends(i)) throw std::invalid_argument("output coords must be sorted and unique");
            if (i == begin || !std::equal(site - out.columns, site - 1, site)) lines.push_back({i, i});
            lines.back().end = i + 1;
        }
    }

    /// Key of the input line that this line of outputs meets, its last place being 0; -1 when it cannot exist.
    int64_t line_key(const Line &line, const OffsetRow &row) const {
        const int32_t *site = out.data + line.begin * out.columns;
        const int64_t batch = site[0] - layout.low[0];
        if (batch < 0 || batch > last_batch) return -1;
        int64_t key = batch * layout.multiplier[0];
        for (int a = 0; a + 1 < geometry.axes; ++a) {
            const int64_t place = site[a + 1] * geometry.stride[a] + row.shift[a] - layout.low[a + 1];
            if (place < 0 || place >= layout.extent(a + 1)) return -1;
            key += place * layout.multiplier[a + 1];
        }
        return key;
    }

    /// First key from p on that is not below `wanted`.
    int64_t advance(int64_t p, int64_t wanted) const {
        int64_t step = 1;
        while (p + step <= n_in && keys[p + step - 1] < wanted) {
            p += step;
            step *= 2;
        }
        return std::lower_bound(keys + p, keys + std::min(n_in, p + step), wanted) - keys;
    }

    /// Appends the pairs of one line and one row of offsets; returns where the pointer stands.
    template <typename Emit>
    int64_t line(const Line &line, const OffsetRow &row, int64_t p, const Emit &emit) const {
        const int64_t base = line_key(line, row);
        if (base < 0) return p;
        const int last = geometry.axes - 1;
        const int64_t extent = last >= 0 ? layout.extent(last + 1) : 1;
        const int64_t low = row.shift[last] - layout.low[last + 1];
        bool placed = false;
        for (int64_t i = line.begin; i < line.end; ++i) {
            const int64_t place = out.data[i * out.columns + last + 1] * geometry.stride[last] + low;
            const int64_t from = std::max<int64_t>(place, 0), to = std::min(place + row.width, extent);
            if (to <= 0) continue;
            if (from >= extent) break;
            if (!placed) p = advance(p, base + from);
            placed = true;
            while (p < n_in && keys[p] < base + from) ++p;
            for (int64_t q = p; q < n_in && keys[q] < base + to; ++q) emit(row.list + keys[q] - base - place, q, i);
        }
        return p;
    }
};

}  // namespace

Map pair_map(const int64_t *in_keys, int64_t n_in, const Layout &in_layout, const Rows &out, const Geometry &geometry,
             int threads) {
    for (int64_t i = 0; i < n_in; ++i)
        if (in_keys[i] <= (i > 0 ? in_keys[i - 1] : -1))
            throw std::invalid_argument("keys must not be negative and must ascend strictly");
    const int64_t lists = geometry.volume();
    const std::vector<OffsetRow> rows = offset_rows(geometry);
    const Merge merge{in_keys, n_in, n_in > 0 ? in_keys[n_in - 1] / in_layout.multiplier[0] : -1, in_layout, out, geometry};
    const int64_t chunk_rows = std::max<int64_t>(kBlock, (1 << 15) / lists / kBlock * kBlock), stride = chunk_rows;
    PairChunks chunks(lists, out.n, chunk_rows);
    const Pieces pieces(chunks.chunks(), threads, 1);
    parallel_for(pieces.count, threads, [&](int64_t piece) {
        Buffer<uint64_t> pair(lists * stride);
        std::vector<int64_t> end(static_cast<size_t>(lists));
        std::vector<int64_t> at(rows.size(), 0);
        std::vector<Line> lines;
        const auto emit = [&](int64_t list, int64_t row_in, int64_t row_out) {
            pair[end[list]++] = static_cast<uint64_t>(row_in) << 32 | static_cast<uint64_t>(row_out);
        };
        for (int64_t c = pieces.begin(piece); c < pieces.end(piece); ++c) {
            for (int64_t l = 0; l < lists; ++l) end[l] = l * stride;
            merge.lines_of(chunks.begin(c), chunks.end(c), lines);
            for (size_t r = 0; r < rows.size(); ++r)
                for (const Line &line : lines) at[r] = merge.line(line, rows[r], at[r], emit);
            chunks.keep(c, end.data(), pair.data(), stride);
        }
    });
    return chunks.packed(n_in, threads);
}

}  // namespace vision3d
