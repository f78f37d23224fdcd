// SPDX-License-Identifier: Apache-2.0
// Keys of coordinates: a row's place in a guarded box (see vision3d/sparse/backends/base.py), and sorting by it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "buffer.h"
#include "radix.h"

namespace vision3d {

constexpr int kMaxColumns = 5;                // batch and up to four axes
constexpr int64_t kMaxRows = INT32_MAX - 1;   // row numbers of a kernel map are int32

/// key = sum_i (coordinate[i] - low[i]) * multiplier[i]
struct Layout {
    int columns = 0;
    int64_t low[kMaxColumns];
    int64_t multiplier[kMaxColumns];

    /// Places along column i >= 1, the guard included.
    int64_t places(int i) const { return multiplier[i - 1] / multiplier[i]; }
    /// Extent of the cloud along column i >= 1.
    int64_t extent(int i) const { return places(i) / 2 + places(i) % 2; }
};

/// (N, columns) int32 rows.
struct Rows {
    const int32_t *data;
    int64_t n;
    int columns;
};

/// Smallest and largest value of each column; 0 and 0 when there are no rows.
struct Bounds {
    int64_t low[kMaxColumns] = {};
    int64_t high[kMaxColumns] = {};
};

Bounds bounds_of(const Rows &rows, int threads);

/// Throws std::invalid_argument for a negative batch index.
void check_batches(const Rows &rows, const Bounds &bounds);

/// Throws std::invalid_argument for a negative batch index or keys that do not fit 63 bits.
Layout layout_of(const Rows &rows, const Bounds &bounds);

/// "(0, 1, -2)"
std::string site_text(const int32_t *site, int columns);

/// Bit fields side by side, as wide as the box needs: they sort as keys do, and unpack by shifts.
struct Fields {
    int columns = 0;
    int bits = 0;  // of all fields, at most 64
    int64_t low[kMaxColumns];
    int shift[kMaxColumns];
    uint64_t mask[kMaxColumns];

    /// For a box whose layout exists (so that 64 bits are enough).
    Fields(const Bounds &bounds, int columns);
};

/// Rows in sorted order, equal ones in input order. One of the two buffers is in use.
struct SortedRows {
    Fields fields;
    int row_bits = 0;
    Buffer<uint64_t> words;   // fields << row_bits | row, where both fit 64 bits
    Buffer<KeyRow> pairs;     // otherwise
    bool wide = false;
};

SortedRows sort_rows(const Rows &rows, const Bounds &bounds, int threads);

/// Keys of rows in the layout's box; returns the first row whose key is not above its predecessor's, or -1.
int64_t write_keys(const Rows &rows, const Layout &layout, int64_t *keys, int threads);

struct SortedSites {
    Buffer<int32_t> coords;
    Buffer<int64_t> order, keys;
};

/// Throws std::invalid_argument where two rows are equal.
SortedSites sort_sites(const Rows &rows, const Bounds &bounds, const Layout &layout, int threads);

struct UniqueSites {
    int64_t count = 0;
    Buffer<int32_t> coords;
    Buffer<int64_t> keys, inverse, order, ptr;
};

UniqueSites unique_sites(const Rows &rows, const Bounds &bounds, const Layout &layout, int threads);

/// Row of each site in the sorted keys, -1 where it is not among them.
void lookup_rows(const int64_t *keys, int64_t n, const Layout &layout, const Rows &sites, int64_t *found, int threads);

/// Splits [0, n) into pieces of equal size, a multiple of `unit`, and runs body(begin, end, piece).
struct Pieces {
    Pieces(int64_t n, int threads, int64_t smallest, int64_t unit = 1);
    int64_t n, size, count;
    int64_t begin(int64_t piece) const { return piece * size; }
    int64_t end(int64_t piece) const { return (piece + 1) * size < n ? (piece + 1) * size : n; }
};

}  // namespace vision3d
