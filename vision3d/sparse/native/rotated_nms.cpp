// SPDX-License-Identifier: Apache-2.0
// Greedy suppression: each box meets only the kept ones that share a cell of a grid with it.
#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <vector>

#include "rotated_iou.h"

namespace vision3d {
namespace {

constexpr int64_t kMostCells = 16;  // that one box may cover; a larger one is compared with every kept box
constexpr double kFarthest = 1e15;  // cell numbers beyond are no longer exact

struct Cell {
    int64_t x, y, label;
    bool operator==(const Cell &other) const { return x == other.x && y == other.y && label == other.label; }
};

struct CellHash {
    size_t operator()(const Cell &cell) const {
        uint64_t hash = 0;
        for (const int64_t part : {cell.x, cell.y, cell.label})
            hash = (hash ^ static_cast<uint64_t>(part)) * 0x9E3779B97F4A7C15ull + (hash >> 31);
        return static_cast<size_t>(hash ^ (hash >> 29));
    }
};

struct Hull {
    double left, top, right, bottom;
};

Hull hull_of(const RotatedBox &b) {
    const double c = std::abs(b.cosine), s = std::abs(b.sine);
    // A little larger than it is: rounding must not hide an overlap.
    const double x = 0.5 * (b.w * c + b.h * s) * (1 + 1e-12), y = 0.5 * (b.w * s + b.h * c) * (1 + 1e-12);
    return {b.cx - x, b.cy - y, b.cx + x, b.cy + y};
}

bool meet(const Hull &a, const Hull &b) {
    return a.left <= b.right && b.left <= a.right && a.top <= b.bottom && b.top <= a.bottom;
}

/// Twice the middle extent of the hulls, so that most boxes cover one to four cells.
double cell_side(const std::vector<Hull> &hulls) {
    std::vector<double> extents;
    extents.reserve(hulls.size());
    for (const Hull &h : hulls) extents.push_back(std::max(h.right - h.left, h.bottom - h.top));
    const auto middle = extents.begin() + static_cast<std::ptrdiff_t>(extents.size() / 2);
    std::nth_element(extents.begin(), middle, extents.end());
    const double side = 2 * *middle;
    return side > 0 && std::isfinite(side) ? side : 1;
}

/// The cells that a hull covers; false where they are too many.
bool cells_of(const Hull &h, double side, int64_t label, std::vector<Cell> &cells) {
    cells.clear();
    const double low_x = std::floor(h.left / side), high_x = std::floor(h.right / side);
    const double low_y = std::floor(h.top / side), high_y = std::floor(h.bottom / side);
    for (const double end : {low_x, high_x, low_y, high_y})
        if (!(std::abs(end) < kFarthest)) return false;
    if ((high_x - low_x + 1) * (high_y - low_y + 1) > static_cast<double>(kMostCells)) return false;
    for (int64_t y = static_cast<int64_t>(low_y); y <= static_cast<int64_t>(high_y); ++y)
        for (int64_t x = static_cast<int64_t>(low_x); x <= static_cast<int64_t>(high_x); ++x)
            cells.push_back({x, y, label});
    return true;
}

}  // namespace

void greedy_nms(const std::vector<RotatedBox> &boxes, const int64_t *labels, double limit, uint8_t *kept) {
    const size_t n = boxes.size();
    if (n == 0) return;
    std::vector<Hull> hulls(n);
    std::transform(boxes.begin(), boxes.end(), hulls.begin(), hull_of);
    const double side = cell_side(hulls);

    std::unordered_map<Cell, std::vector<size_t>, CellHash> grid;
    std::vector<size_t> large, all;       // kept boxes: those that cover too many cells, and every one
    std::vector<size_t> met(n, n);        // met[k] == i: box i was compared with k already
    std::vector<Cell> cells;
    for (size_t i = 0; i < n; ++i) {
        const auto suppressed_by = [&](const std::vector<size_t> &others) {
            for (const size_t k : others) {
                if (met[k] == i || labels[k] != labels[i] || !meet(hulls[k], hulls[i])) continue;
                met[k] = i;
                if (overlap(boxes[k], boxes[i], true) > limit) return true;
            }
            return false;
        };
        const bool gridded = cells_of(hulls[i], side, labels[i], cells);
        bool drop = gridded ? suppressed_by(large) : suppressed_by(all);
        for (size_t c = 0; gridded && !drop && c < cells.size(); ++c) {
            const auto found = grid.find(cells[c]);
            drop = found != grid.end() && suppressed_by(found->second);
        }
        kept[i] = !drop;
        if (drop) continue;
        all.push_back(i);
        if (!gridded) large.push_back(i);
        for (const Cell &cell : cells)
            if (gridded) grid[cell].push_back(i);
    }
}

}  // namespace vision3d
