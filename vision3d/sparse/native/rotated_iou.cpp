// SPDX-License-Identifier: Apache-2.0
#include "rotated_iou.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>

#include "threads.h"

namespace vision3d {
namespace {

constexpr double kLargestSide = 1e150;

// A cut offers at most one corner more per two it meets, whatever the numbers are: 4, 6, 9, 13, 19.
constexpr int kMostCorners = 20;
constexpr int64_t kPairsPerTask = 1 << 14;

struct Point {
    double x, y;
};

/// Cuts a polygon to where sign * coordinate <= limit (Sutherland and Hodgman, 1974); returns its number of corners.
template <bool AlongX>
int cut(const Point *in, int n, double sign, double limit, Point *out) {
    double beyond[kMostCorners];
    bool outside = false;
    for (int i = 0; i < n; ++i) {
        beyond[i] = sign * (AlongX ? in[i].x : in[i].y) - limit;
        outside |= beyond[i] > 0;
    }
    if (!outside) {
        std::copy_n(in, n, out);
        return n;
    }
    int count = 0;
    for (int i = 0; i < n; ++i) {
        const int j = i + 1 < n ? i + 1 : 0;
        const bool here = beyond[i] <= 0, ahead = beyond[j] <= 0;
        if (here) out[count++] = in[i];
        if (here == ahead) continue;
        const double part = beyond[i] / (beyond[i] - beyond[j]);
        if (AlongX)
            out[count++] = {sign * limit, in[i].y + part * (in[j].y - in[i].y)};
        else
            out[count++] = {in[i].x + part * (in[j].x - in[i].x), sign * limit};
    }
    return count;
}

/// Area that `a` has inside `b`, in the frame of `b`: only differences of the two centres and angles enter.
double clipped_area(const RotatedBox &a, const RotatedBox &b) {
    const double c = a.cosine * b.cosine + a.sine * b.sine, s = a.sine * b.cosine - a.cosine * b.sine;
    const double dx = a.cx - b.cx, dy = a.cy - b.cy;
    const double x = dx * b.cosine + dy * b.sine, y = dy * b.cosine - dx * b.sine;
    const double half_x = 0.5 * b.w, half_y = 0.5 * b.h;
    const double wx = 0.5 * a.w * c, wy = 0.5 * a.w * s, hx = -0.5 * a.h * s, hy = 0.5 * a.h * c;
    const double reach_x = std::abs(wx) + std::abs(hx), reach_y = std::abs(wy) + std::abs(hy);
    if (std::abs(x) - reach_x >= half_x || std::abs(y) - reach_y >= half_y) return 0;
    // The same in the frame of `a`; the two tests together find every pair that is apart.
    const double back_x = std::abs(dx * a.cosine + dy * a.sine), back_y = std::abs(dy * a.cosine - dx * a.sine);
    if (back_x - std::abs(half_x * c) - std::abs(half_y * s) >= 0.5 * a.w) return 0;
    if (back_y - std::abs(half_x * s) - std::abs(half_y * c) >= 0.5 * a.h) return 0;

    Point one[kMostCorners] = {
        {x - wx - hx, y - wy - hy}, {x + wx - hx, y + wy - hy}, {x + wx + hx, y + wy + hy}, {x - wx + hx, y - wy + hy}};
    Point two[kMostCorners];
    int n = cut<true>(one, 4, 1, half_x, two);
    n = cut<true>(two, n, -1, half_x, one);
    n = cut<false>(one, n, 1, half_y, two);
    n = cut<false>(two, n, -1, half_y, one);
    double twice = 0;
    for (int i = 0; i < n; ++i) {
        const Point &p = one[i], &q = one[i + 1 < n ? i + 1 : 0];
        twice += p.x * q.y - p.y * q.x;
    }
    return std::max(0.5 * twice, 0.0);
}

/// A fixed choice of whose frame is used, so that the order of a pair does not matter to the last bit.
bool comes_first(const RotatedBox &a, const RotatedBox &b) {
    if (a.area != b.area) return a.area > b.area;
    if (a.w != b.w) return a.w > b.w;
    if (a.cx != b.cx) return a.cx < b.cx;
    if (a.cy != b.cy) return a.cy < b.cy;
    return a.theta < b.theta;
}

bool same(const RotatedBox &a, const RotatedBox &b) {
    return a.cx == b.cx && a.cy == b.cy && a.w == b.w && a.h == b.h && a.theta == b.theta;
}

bool circles_meet(const RotatedBox &a, const RotatedBox &b) {
    const double dx = a.cx - b.cx, dy = a.cy - b.cy, reach = a.radius + b.radius;
    return std::abs(dx) <= reach && std::abs(dy) <= reach && dx * dx + dy * dy <= reach * reach * (1 + 1e-14);
}

/// The circles around boxes by rising x, so that one box meets few of many.
class Circles {
  public:
    explicit Circles(const std::vector<RotatedBox> &boxes) : order_(boxes.size()), x_(boxes.size()) {
        std::iota(order_.begin(), order_.end(), size_t{0});
        std::sort(order_.begin(), order_.end(), [&](size_t i, size_t j) { return boxes[i].cx < boxes[j].cx; });
        for (size_t k = 0; k < order_.size(); ++k) {
            x_[k] = boxes[order_[k]].cx;
            largest_ = std::max(largest_, boxes[order_[k]].radius);
        }
    }
    /// Calls visit(j) for each box whose circle may meet that of `box`.
    template <typename Visit>
    void near(const RotatedBox &box, const Visit &visit) const {
        const double reach = box.radius + largest_;
        const auto first = std::lower_bound(x_.begin(), x_.end(), box.cx - reach);
        const auto last = std::upper_bound(first, x_.end(), box.cx + reach);
        for (auto at = first; at != last; ++at) visit(order_[static_cast<size_t>(at - x_.begin())]);
    }

  private:
    std::vector<size_t> order_;
    std::vector<double> x_;
    double largest_ = 0;
};

}  // namespace

std::vector<RotatedBox> rotated_boxes(const double *rows, int64_t n, const char *name) {
    std::vector<RotatedBox> boxes(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
        const double *r = rows + 5 * i;
        bool good = r[2] >= 0 && r[3] >= 0 && r[2] <= kLargestSide && r[3] <= kLargestSide;
        for (int k = 0; k < 5; ++k) good &= std::isfinite(r[k]);
        if (!good)
            throw std::invalid_argument(std::string(name) + "[" + std::to_string(i) + "]: not a finite box");
        boxes[static_cast<size_t>(i)] = {r[0],           r[1],           r[2],        r[3],
                                         r[4],           std::cos(r[4]), std::sin(r[4]), r[2] * r[3],
                                         0.5 * std::hypot(r[2], r[3])};
    }
    return boxes;
}

double shared_area(const RotatedBox &a, const RotatedBox &b) {
    if (!(a.area > 0) || !(b.area > 0) || !circles_meet(a, b)) return 0;
    if (same(a, b)) return a.area;
    const double area = comes_first(a, b) ? clipped_area(b, a) : clipped_area(a, b);
    return std::min(area, std::min(a.area, b.area));
}

double overlap(const RotatedBox &a, const RotatedBox &b, bool over_union) {
    const double shared = shared_area(a, b);
    return shared > 0 ? shared / (over_union ? a.area + b.area - shared : a.area) : 0;
}

void overlap_matrix(const std::vector<RotatedBox> &a, const std::vector<RotatedBox> &b, bool over_union, double *out,
                    int threads) {
    const int64_t rows = static_cast<int64_t>(a.size()), columns = static_cast<int64_t>(b.size());
    if (rows == 0 || columns == 0) return;
    const int64_t step = std::max<int64_t>(1, kPairsPerTask / columns);
    const Circles circles(b);
    parallel_for((rows + step - 1) / step, threads, [&](int64_t task) {
        for (int64_t i = task * step; i < std::min(rows, (task + 1) * step); ++i) {
            const RotatedBox &box = a[static_cast<size_t>(i)];
            double *row = out + i * columns;
            circles.near(box, [&](size_t j) {
                const double value = overlap(box, b[j], over_union);
                if (value > 0) row[j] = value;
            });
        }
    });
}

void overlap_pairs(const std::vector<RotatedBox> &a, const std::vector<RotatedBox> &b, bool over_union, double *out,
                   int threads) {
    const int64_t n = static_cast<int64_t>(a.size());
    parallel_for((n + kPairsPerTask - 1) / kPairsPerTask, threads, [&](int64_t task) {
        for (int64_t i = task * kPairsPerTask; i < std::min(n, (task + 1) * kPairsPerTask); ++i)
            out[i] = overlap(a[static_cast<size_t>(i)], b[static_cast<size_t>(i)], over_union);
    });
}

void points_in_boxes(const double *points, int64_t n_points, const std::vector<RotatedBox> &boxes, uint8_t *out,
                     int threads) {
    const int64_t columns = static_cast<int64_t>(boxes.size());
    if (n_points == 0 || columns == 0) return;
    const int64_t step = std::max<int64_t>(1, 4 * kPairsPerTask / columns);
    parallel_for((n_points + step - 1) / step, threads, [&](int64_t task) {
        for (int64_t i = task * step; i < std::min(n_points, (task + 1) * step); ++i) {
            uint8_t *row = out + i * columns;
            for (int64_t j = 0; j < columns; ++j) {
                const RotatedBox &b = boxes[static_cast<size_t>(j)];
                const double dx = points[2 * i] - b.cx, dy = points[2 * i + 1] - b.cy;
                row[j] = std::abs(dx * b.cosine + dy * b.sine) <= 0.5 * b.w &&
                         std::abs(dy * b.cosine - dx * b.sine) <= 0.5 * b.h;
            }
        }
    });
}

}  // namespace vision3d
