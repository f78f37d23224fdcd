// SPDX-License-Identifier: Apache-2.0
// Overlap of rotated boxes (cx, cy, w, h, theta), exact up to rounding. Twin of vision3d/geometry/rotated/clipping.py.
#pragma once

#include <cstdint>
#include <vector>

namespace vision3d {

/// A box with what every pair needs of it.
struct RotatedBox {
    double cx, cy, w, h, theta;
    double cosine, sine, area, radius;
};

/// Rows (n, 5). Throws std::invalid_argument with the row for a number that is not finite or a side that is negative or
/// above 1e150 (whose area would leave the range of double).
std::vector<RotatedBox> rotated_boxes(const double *rows, int64_t n, const char *name);

/// Area of the intersection; a box without area shares none. The same for (a, b) and (b, a).
double shared_area(const RotatedBox &a, const RotatedBox &b);

/// Intersection over union, or over the area of a; 0 where a box has no area.
double overlap(const RotatedBox &a, const RotatedBox &b, bool over_union);

/// out (n_a, n_b), zeros before: only overlaps are written.
void overlap_matrix(const std::vector<RotatedBox> &a, const std::vector<RotatedBox> &b, bool over_union, double *out,
                    int threads);

/// out (n)
void overlap_pairs(const std::vector<RotatedBox> &a, const std::vector<RotatedBox> &b, bool over_union, double *out,
                   int threads);

/// out (n_points, n_boxes): 1 where the point lies in the box or on its border. points (n_points, 2).
void points_in_boxes(const double *points, int64_t n_points, const std::vector<RotatedBox> &boxes, uint8_t *out,
                     int threads);

/// Greedy suppression of boxes that are sorted by falling score: kept[i] = 1 where no kept box of the same class before
/// i overlaps it by more than `limit`, else 0. labels (n).
void greedy_nms(const std::vector<RotatedBox> &boxes, const int64_t *labels, double limit, uint8_t *kept);

}  // namespace vision3d
