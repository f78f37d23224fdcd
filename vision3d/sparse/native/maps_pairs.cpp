// SPDX-License-Identifier: Apache-2.0
// Maps between two sorted sets: a strided or transposed layer, or a prescribed output set.
#include <algorithm>
#include <stdexcept>

#include "maps.h"
#include "maps_lines.h"
#include "threads.h"

namespace vision3d {
namespace {

/// Kernel offsets that differ along the last axis only.
struct OffsetRow {
    int64_t list;  // of the first offset
    Axes shift;    // k * dilation - padding, along all axes but the last
};

std::vector<OffsetRow> offset_rows(const Geometry &g) {
    std::vector<OffsetRow> rows;
    const int64_t volume = g.volume(), last = g.axes - 1;
    for (int64_t k = 0; k < volume; k += g.kernel[last]) {
        OffsetRow row{k, {}};
        for (int64_t a = last - 1, rest = k / g.kernel[last]; a >= 0; rest /= g.kernel[a--])
            row.shift[a] = rest % g.kernel[a] * g.dilation[a] - g.padding[a];
        rows.push_back(row);
    }
    return rows;
}

/// Output rows of a chunk that differ along the last axis only.
struct OutputLine {
    int64_t begin, end;
};

template <typename Key>
class PairMerge {
  public:
    PairMerge(const Lines &lines, const Places<Key> &places, const Layout &layout, const Rows &out, const Geometry &g)
        : lines_(lines), places_(places), layout_(layout), out_(out), geometry_(g), rows_(offset_rows(g)) {
        last_batch_ = static_cast<int64_t>(lines.key[lines.count - 1] / static_cast<uint64_t>(layout.multiplier[0]));
    }

    /// Chunks [begin, end) of the outputs.
    void run(int64_t begin, int64_t end, PairChunks &chunks) const {
        const int64_t last = geometry_.axes - 1, kernel = geometry_.kernel[last];
        const int64_t width = geometry_.dilation[last] == 1 ? kernel : 1;
        const Key *place = places_.place.data();
        Scratch scratch(chunks.lists(), chunks.chunk_rows());
        Meetings<Key> meetings(chunks.chunk_rows() + 1);
        Buffer<Key> targets(chunks.chunk_rows());
        std::vector<OutputLine> lines;
        std::vector<int64_t> line_at(rows_.size() * kernel / width, -1), row_at(line_at.size(), -1);
        for (int64_t c = begin; c < end; ++c) {
            scratch.clear();
            const int64_t first = chunks.begin(c);
            output_lines(first, chunks.end(c), lines);
            for (int64_t j = 0, pointer = 0; j < kernel; j += width) {
                const int64_t shift = j * geometry_.dilation[last] - geometry_.padding[last];
                write_targets(first, chunks.end(c), shift, width, targets.data());
                const Targets<Key> target{targets.data(), first};
                for (const OffsetRow &row : rows_) {
                    meet(lines, row, line_at[pointer], meetings);
                    int64_t &at = row_at[pointer++];
                    if (at < 0 && meetings.count > 0) at = first_row(target, meetings.list[0]);
                    at = merge_for<Key>(width)(place, target, meetings, {row.list + j, width, 0}, at, scratch);
                }
            }
            chunks.keep(c, scratch);
        }
    }

  private:
    const int32_t *site(int64_t row) const { return out_.data + row * out_.columns; }

    void output_lines(int64_t begin, int64_t end, std::vector<OutputLine> &lines) const {
        const int last = out_.columns - 1;
        lines.clear();
        for (int64_t i = begin; i < end; ++i) {
            const int32_t *now = site(i);
            int c = 0;  // first column that differs from the row before
            if (i > 0) {
                const int32_t *before = now - out_.columns;
                while (c < last && now[c] == before[c]) ++c;
                if (now[c] <= before[c]) throw std::invalid_argument("output coords must ascend strictly");
            }
            if (c < last || i == begin) lines.push_back({i, i});
            lines.back().end = i + 1;
        }
    }

    /// Where the outputs of a task begin: its first line may have begun long before.
    int64_t first_row(Targets<Key> target, const Meeting<Key> &m) const {
        const Key *place = places_.place.data(), wanted = static_cast<Key>(target.of(m.begin) + m.shift);
        return std::lower_bound(place + m.first, place + lines_.n, wanted) - place;
    }

    /// Places along the input line, those outside moved next to it: they cannot match, and still ascend. Negative ones
    /// wrap; the start of a line, which is added, brings them back.
    void write_targets(int64_t begin, int64_t end, int64_t shift, int64_t width, Key *targets) const {
        const int last = out_.columns - 1;
        const int64_t stride = geometry_.stride[last - 1], low = layout_.low[last];
        for (int64_t i = begin; i < end; ++i)
            targets[i - begin] =
                static_cast<Key>(std::clamp(site(i)[last] * stride + shift - low, -width, lines_.extent));
    }

    /// Key of the input line that a line of outputs wants, or -1 when it cannot exist.
    int64_t wanted_line(const int32_t *out, const OffsetRow &row) const {
        const int64_t batch = out[0] - layout_.low[0];
        if (batch < 0 || batch > last_batch_) return -1;
        int64_t key = batch * layout_.multiplier[0];
        for (int a = 0; a + 1 < geometry_.axes; ++a) {
            const int64_t place = out[a + 1] * geometry_.stride[a] + row.shift[a] - layout_.low[a + 1];
            if (place < 0 || place >= layout_.extent(a + 1)) return -1;
            key += place * layout_.multiplier[a + 1];
        }
        return key;
    }

    /// The lines of outputs that find the line they want. `pointer`: the line reached, -1 before the first.
    void meet(const std::vector<OutputLine> &lines, const OffsetRow &row, int64_t &pointer,
              Meetings<Key> &found) const {
        const uint64_t *key = lines_.key.data();
        Meeting<Key> *to = found.list.data();
        for (const OutputLine &line : lines) {
            const int64_t wanted = wanted_line(site(line.begin), row);
            if (wanted < 0) continue;
            const uint64_t target = static_cast<uint64_t>(wanted);
            if (pointer < 0) pointer = std::lower_bound(key, key + lines_.count, target) - key;
            while (key[pointer] < target) ++pointer;
            *to = {line.begin, line.end, lines_.first[pointer], static_cast<Key>(places_.start(pointer))};
            to += key[pointer] == target;
        }
        found.count = to - found.list.data();
    }

    const Lines &lines_;
    const Places<Key> &places_;
    const Layout &layout_;
    const Rows &out_;
    const Geometry &geometry_;
    const std::vector<OffsetRow> rows_;
    int64_t last_batch_;
};

template <typename Key>
Map merged(const int64_t *keys, const Lines &lines, int64_t width, const Layout &layout, const Rows &out,
           const Geometry &geometry, int threads) {
    PairChunks chunks(geometry.volume(), out.n, chunk_rows_for(geometry.volume()));
    if (lines.n > 0) {
        const Places<Key> places(keys, lines, width, threads);
        const PairMerge<Key> merge(lines, places, layout, out, geometry);
        const Pieces pieces(chunks.chunks(), threads, 1);
        parallel_for(pieces.count, threads,
                     [&](int64_t piece) { merge.run(pieces.begin(piece), pieces.end(piece), chunks); });
    }
    return chunks.packed(lines.n, threads);
}

}  // namespace

Map pair_map(const int64_t *in_keys, int64_t n_in, const Layout &in_layout, const Rows &out, const Geometry &geometry,
             int threads) {
    const Lines lines(in_keys, n_in, in_layout, threads);
    const int64_t width = geometry.kernel[geometry.axes - 1];
    if (Places<uint32_t>::fits(lines, width))
        return merged<uint32_t>(in_keys, lines, width, in_layout, out, geometry, threads);
    if (Places<uint64_t>::fits(lines, width))
        return merged<uint64_t>(in_keys, lines, width, in_layout, out, geometry, threads);
    throw std::invalid_argument("coords have too many lines for their extent; split the cloud");
}

}  // namespace vision3d
