// SPDX-License-Identifier: Apache-2.0
// Kernel maps and the output sites of strided and transposed convolutions. See vision3d/sparse/kernel_map.py.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "buffer.h"
#include "keys.h"

namespace vision3d {

constexpr int kMaxAxes = kMaxColumns - 1;
constexpr uint32_t kBlock = 64;  // rows per entry of a block table

using Axes = std::array<int64_t, kMaxAxes>;

/// Geometry of a convolution: input = output * stride - padding + k * dilation, per axis.
struct Geometry {
    int axes;
    Axes kernel, stride, padding, dilation;

    int64_t volume() const {
        int64_t product = 1;
        for (int a = 0; a < axes; ++a) product *= kernel[a];
        return product;
    }
};

/// The arrays of a kernel map.
struct Map {
    int64_t lists = 0, blocks_in = 0, blocks_out = 0;  // block tables are (lists, blocks + 1)
    Buffer<int64_t> ptr;
    Buffer<int32_t> in, out, block_in, block_out;
};

struct Scratch;

/// Pairs as a merge finds them: rows of the outputs in chunks, list after list within a chunk.
class PairChunks {
  public:
    PairChunks(int64_t lists, int64_t n_out, int64_t chunk_rows);
    int64_t lists() const { return lists_; }
    int64_t chunk_rows() const { return chunk_rows_; }
    int64_t chunks() const { return static_cast<int64_t>(pairs_.size()); }
    int64_t begin(int64_t chunk) const { return chunk * chunk_rows_; }
    int64_t end(int64_t chunk) const { return begin(chunk + 1) < n_out_ ? begin(chunk + 1) : n_out_; }

    /// Keeps a chunk's pairs.
    void keep(int64_t chunk, const Scratch &found);

    /// All lists in one piece, with their block tables.
    Map packed(int64_t n_in, int threads) const;

  private:
    int64_t lists_, n_out_, chunk_rows_;
    std::vector<int64_t> count_;           // (chunks, lists)
    std::vector<Buffer<uint64_t>> pairs_;  // list after list
};

/// Submanifold map: the lists of the offsets after the centre. Throws std::invalid_argument unless keys ascend.
Map submanifold_map(const int64_t *keys, int64_t n, const Layout &layout, const Geometry &geometry, int threads);

/// All pairs between two sorted sets.
Map pair_map(const int64_t *in_keys, int64_t n_in, const Layout &in_layout, const Rows &out, const Geometry &geometry,
             int threads);

struct Sites {
    int64_t count = 0;
    Buffer<int32_t> coords;
};

/// Sorted output sites of a strided convolution, or of a transposed one. `shape`: null, or a bound per axis.
Sites output_sites(const Rows &rows, const Geometry &geometry, const int64_t *shape, bool transposed, int threads);

}  // namespace vision3d
