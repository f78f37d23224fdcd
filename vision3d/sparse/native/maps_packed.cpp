// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "maps.h"
#include "maps_merge.h"
#include "threads.h"

namespace vision3d {
namespace {

constexpr int64_t kPiecePairs = 1 << 14;

/// Entries (begin, end] of a block table: number of rows below 64 * b. Rows ascend.
void fill_blocks(const int32_t *rows, int64_t count, int64_t begin, int64_t end, int32_t *table) {
    int64_t at = std::lower_bound(rows, rows + count, begin * kBlock) - rows;
    const int64_t stop = std::lower_bound(rows + at, rows + count, end * kBlock) - rows;
    // The last pair of a block writes last; blocks without pairs take over what lies before them.
    std::fill(table + begin + 1, table + end + 1, 0);
    int32_t before = static_cast<int32_t>(at);
    for (; at < stop; ++at) table[static_cast<uint32_t>(rows[at]) / kBlock + 1] = static_cast<int32_t>(at + 1);
    for (int64_t b = begin + 1; b <= end; ++b) table[b] = before = std::max(before, table[b]);
}

}  // namespace

PairChunks::PairChunks(int64_t lists, int64_t n_out, int64_t chunk_rows)
    : lists_(lists), n_out_(n_out), chunk_rows_(chunk_rows) {
    const int64_t chunks = (n_out + chunk_rows - 1) / chunk_rows;
    count_.assign(static_cast<size_t>(chunks * lists), 0);
    pairs_.resize(static_cast<size_t>(chunks));
}

void PairChunks::keep(int64_t chunk, const Scratch &found) {
    int64_t total = 0;
    for (int64_t l = 0; l < lists_; ++l) total += count_[chunk * lists_ + l] = found.end[l] - l * found.stride;
    if (total == 0) return;
    Buffer<uint64_t> pairs(total);
    uint64_t *to = pairs.data();
    for (int64_t l = 0; l < lists_; ++l)
        to = std::copy(found.pair.data() + l * found.stride, found.pair.data() + found.end[l], to);
    pairs_[chunk] = std::move(pairs);
}

Map PairChunks::packed(int64_t n_in, int threads) const {
    Map map;
    map.lists = lists_;
    map.blocks_in = (n_in + kBlock - 1) / kBlock;
    map.blocks_out = (n_out_ + kBlock - 1) / kBlock;
    map.ptr = Buffer<int64_t>(lists_ + 1);
    std::vector<int64_t> start(count_.size());
    int64_t total = 0;
    map.ptr[0] = 0;
    for (int64_t l = 0; l < lists_; ++l) {
        for (int64_t c = 0; c < chunks(); ++c) {
            start[c * lists_ + l] = total;
            total += count_[c * lists_ + l];
        }
        map.ptr[l + 1] = total;
    }
    map.in = Buffer<int32_t>(total);
    map.out = Buffer<int32_t>(total);
    const Pieces pieces(chunks(), threads, 1);
    parallel_for(pieces.count, threads, [&](int64_t piece) {
        for (int64_t c = pieces.begin(piece); c < pieces.end(piece); ++c) {
            const uint64_t *from = pairs_[c].data();
            for (int64_t l = 0; l < lists_; ++l) {
                const int64_t count = count_[c * lists_ + l], to = start[c * lists_ + l];
                int32_t *in = map.in.data() + to, *out = map.out.data() + to;
                for (int64_t i = 0; i < count; ++i) {
                    in[i] = static_cast<int32_t>(from[i] >> 32);
                    out[i] = static_cast<int32_t>(from[i]);
                }
                from += count;
            }
        }
    });
    map.block_in = Buffer<int32_t>(lists_ * (map.blocks_in + 1));
    map.block_out = Buffer<int32_t>(lists_ * (map.blocks_out + 1));
    const auto tables = [&](const int32_t *rows, int64_t blocks, int32_t *table) {
        const Pieces spans(blocks, threads, std::max<int64_t>(1, kPiecePairs / kBlock));
        for (int64_t l = 0; l < lists_; ++l) table[l * (blocks + 1)] = 0;
        parallel_for(spans.count, threads, [&](int64_t span) {
            for (int64_t l = 0; l < lists_; ++l)
                fill_blocks(rows + map.ptr[l], map.ptr[l + 1] - map.ptr[l], spans.begin(span), spans.end(span),
                            table + l * (blocks + 1));
        });
    };
    tables(map.in.data(), map.blocks_in, map.block_in.data());
    tables(map.out.data(), map.blocks_out, map.block_out.data());
    return map;
}

}  // namespace vision3d
