// SPDX-License-Identifier: Apache-2.0
// Output sites of strided and transposed convolutions: the parents of every input, sorted, each once.
#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "maps.h"
#include "threads.h"

namespace vision3d {
namespace {

/// first, first + step, ..: count of them.
struct Progression {
    int64_t first, step, count;

    int64_t last() const { return first + (count - 1) * step; }

    void clip(int64_t low, int64_t high) {  // to low <= value < high
        if (count > 0 && first < low) {
            const int64_t skip = std::min(count, (low - first + step - 1) / step);
            first += skip * step;
            count -= skip;
        }
        if (count > 0 && last() >= high) count = first >= high ? 0 : (high - first + step - 1) / step;
    }
};

/// Floor division by a fixed positive number, without the slow instruction. Dividends are below 2^35.
class Divider {
  public:
    explicit Divider(int64_t by) : by_(by), inverse_(1.0 / static_cast<double>(by)) {}

    int64_t floor(int64_t a) const {
        const int64_t q = static_cast<int64_t>(static_cast<double>(a) * inverse_);  // off by one at most
        const int64_t rest = a - q * by_;
        return q - (rest < 0) + (rest >= by_);
    }

  private:
    int64_t by_;
    double inverse_;
};

/// Output coordinates that one axis of an input meets.
class AxisTargets {
  public:
    AxisTargets(const Geometry &g, int axis, const int64_t *shape, bool transposed)
        : kernel_(g.kernel[axis]), stride_(g.stride[axis]), padding_(g.padding[axis]), dilation_(g.dilation[axis]),
          bound_(shape ? shape[axis] : -1), transposed_(transposed), divide_(g.stride[axis]) {
        common_ = std::gcd(dilation_, stride_);
        period_ = stride_ / common_;
        // k * dilation = place (mod stride) has one solution modulo the period, found through the inverse.
        int64_t a = dilation_ / common_ % period_, b = period_, x = 1, y = 0;
        while (b != 0) {
            const int64_t q = a / b;
            a = std::exchange(b, a - q * b);
            x = std::exchange(y, x - q * y);
        }
        inverse_ = period_ == 1 ? 0 : (x % period_ + period_) % period_;
    }

    /// The outputs of one input coordinate, ascending.
    Progression of(int64_t value) const {
        Progression found;
        if (transposed_) {
            found = {value * stride_ - padding_, dilation_, kernel_};
        } else {
            const int64_t place = value + padding_, quotient = divide_.floor(place);
            if (dilation_ == 1) {
                const int64_t first = divide_.floor(place - kernel_ + stride_);
                found = {first, 1, quotient - first + 1};
            } else {
                const int64_t rest = place - quotient * stride_;
                if (rest % common_ != 0) return {0, 1, 0};
                const int64_t k = rest / common_ * inverse_ % period_;
                const int64_t count = k < kernel_ ? (kernel_ - k - 1) / period_ + 1 : 0;
                const int64_t step = dilation_ / common_;
                found = {(place - k * dilation_) / stride_ - (count - 1) * step, step, count};
            }
        }
        if (bound_ >= 0) found.clip(0, bound_);
        return found;
    }

  private:
    int64_t kernel_, stride_, padding_, dilation_, bound_;
    bool transposed_;
    int64_t common_, period_, inverse_;
    Divider divide_;
};

void check_range(const Progression &p) {
    if (p.first < INT32_MIN || p.last() > INT32_MAX)
        throw std::invalid_argument("an output coordinate does not fit 32 bits; move the cloud towards the origin");
}

/// Input rows that differ along the last axis only, with what they meet along it.
struct Line {
    int64_t row;   // the first
    int64_t last;  // number of outputs along the last axis
};

/// The candidates of a piece of the input rows.
struct Piece {
    std::vector<Line> lines;
    std::vector<int32_t> last;  // line after line
    int64_t count = 0;
    Bounds bounds;
};

class Search {
  public:
    Search(const Rows &rows, const Geometry &g, const int64_t *shape, bool transposed)
        : rows_(rows), leading_(g.axes - 1) {
        for (int a = 0; a < g.axes; ++a) axes_.emplace_back(g, a, shape, transposed);
    }

    void collect(int64_t begin, int64_t end, Piece &piece) const {
        for (int64_t i = begin; i < end;) {
            const int32_t *head = rows_.data + i * rows_.columns;
            Progression leading[kMaxAxes];
            int64_t product = 1;
            for (int a = 0; a < leading_; ++a) product *= (leading[a] = axes_[a].of(head[a + 1])).count;
            const size_t start = piece.last.size();
            const int64_t first = i;
            do {
                if (product > 0) append(i, i > first, start, piece.last);
                ++i;
            } while (i < end && std::equal(head, head + leading_ + 1, rows_.data + i * rows_.columns));
            const int64_t found = static_cast<int64_t>(piece.last.size() - start);
            if (found == 0) continue;
            for (int a = 0; a < leading_; ++a) check_range(leading[a]);
            widen(piece, head[0], leading, piece.last.data() + start, found);
            piece.lines.push_back({first, found});
            piece.count += product * found;
        }
    }

    /// Writes the packed outputs of a piece.
    void write(const Piece &piece, const Fields &fields, uint64_t *to) const {
        const int32_t *last = piece.last.data();
        for (const Line &line : piece.lines) {
            const int32_t *head = rows_.data + line.row * rows_.columns;
            Progression leading[kMaxAxes];
            for (int a = 0; a < leading_; ++a) leading[a] = axes_[a].of(head[a + 1]);
            const uint64_t batch = static_cast<uint64_t>(head[0] - fields.low[0]) << fields.shift[0];
            int64_t product = 1;
            for (int a = 0; a < leading_; ++a) product *= leading[a].count;
            for (int64_t choice = 0; choice < product; ++choice) {
                uint64_t key = batch;
                int64_t rest = choice;
                for (int a = 0; a < leading_; rest /= leading[a++].count) {
                    const int64_t value = leading[a].first + rest % leading[a].count * leading[a].step;
                    key |= static_cast<uint64_t>(value - fields.low[a + 1]) << fields.shift[a + 1];
                }
                const int64_t low = fields.low[leading_ + 1];
                const int shift = fields.shift[leading_ + 1];
                for (int64_t j = 0; j < line.last; ++j) *to++ = key | static_cast<uint64_t>(last[j] - low) << shift;
            }
            last += line.last;
        }
    }

  private:
    void append(int64_t row, bool follows, size_t start, std::vector<int32_t> &found) const {
        const int32_t *value = rows_.data + row * rows_.columns + leading_ + 1;
        Progression p = axes_[leading_].of(*value);
        // Neighbours share most outputs. Ranges without gaps ascend together, so what lies below is there already.
        if (p.step == 1 && follows && *value >= *(value - rows_.columns) && found.size() > start)
            p.clip(int64_t(found.back()) + 1, INT64_MAX);
        if (p.count == 0) return;
        check_range(p);
        for (int64_t j = 0; j < p.count; ++j) found.push_back(static_cast<int32_t>(p.first + j * p.step));
    }

    void widen(Piece &piece, int64_t batch, const Progression *leading, const int32_t *last, int64_t count) const {
        const auto [low, high] = std::minmax_element(last, last + count);
        const auto one = [&](int c, int64_t a, int64_t b) {
            const bool fresh = piece.lines.empty();
            piece.bounds.low[c] = fresh ? a : std::min(piece.bounds.low[c], a);
            piece.bounds.high[c] = fresh ? b : std::max(piece.bounds.high[c], b);
        };
        one(0, batch, batch);
        for (int a = 0; a < leading_; ++a) one(a + 1, leading[a].first, leading[a].last());
        one(leading_ + 1, *low, *high);
    }

    const Rows &rows_;
    int leading_;
    std::vector<AxisTargets> axes_;
};

/// Sorted packed sites, each once, as coordinates.
Sites unpacked(const Buffer<uint64_t> &words, const Fields &f, int threads) {
    const Pieces pieces(words.size(), threads, 1 << 14);
    std::vector<int64_t> first(static_cast<size_t>(pieces.count) + 1, 0);
    parallel_for(pieces.count, threads, [&](int64_t p) {
        int64_t count = 0;
        for (int64_t i = pieces.begin(p); i < pieces.end(p); ++i) count += i == 0 || words[i] != words[i - 1];
        first[p + 1] = count;
    });
    for (int64_t p = 0; p < pieces.count; ++p) first[p + 1] += first[p];
    Sites sites{first[pieces.count], Buffer<int32_t>(first[pieces.count] * f.columns)};
    if (sites.count > kMaxRows) throw std::invalid_argument("more than 2^31 - 2 output sites; split the batch");
    parallel_for(pieces.count, threads, [&](int64_t p) {
        int32_t *to = sites.coords.data() + first[p] * f.columns;
        for (int64_t i = pieces.begin(p); i < pieces.end(p); ++i) {
            if (i > 0 && words[i] == words[i - 1]) continue;
            for (int c = 0; c < f.columns; ++c)
                *to++ = static_cast<int32_t>(f.low[c] + static_cast<int64_t>((words[i] >> f.shift[c]) & f.mask[c]));
        }
    });
    return sites;
}

}  // namespace

Sites output_sites(const Rows &rows, const Geometry &geometry, const int64_t *shape, bool transposed, int threads) {
    check_batches(rows, bounds_of(rows, threads));
    const Search search(rows, geometry, shape, transposed);
    const Pieces pieces(rows.n, threads, 1 << 13);
    std::vector<Piece> found(static_cast<size_t>(pieces.count));
    parallel_for(pieces.count, threads, [&](int64_t p) { search.collect(pieces.begin(p), pieces.end(p), found[p]); });
    Bounds bounds;
    int64_t total = 0;
    std::vector<int64_t> start;
    for (const Piece &piece : found) {
        start.push_back(total);
        for (int c = 0; c < rows.columns && piece.count > 0; ++c) {
            bounds.low[c] = total ? std::min(bounds.low[c], piece.bounds.low[c]) : piece.bounds.low[c];
            bounds.high[c] = total ? std::max(bounds.high[c], piece.bounds.high[c]) : piece.bounds.high[c];
        }
        total += piece.count;
    }
    if (total == 0) return {0, Buffer<int32_t>(0)};
    layout_of({nullptr, 0, rows.columns}, bounds);  // refuses an extent too large for keys
    const Fields fields(bounds, rows.columns);
    Buffer<uint64_t> words(total);
    parallel_for(pieces.count, threads, [&](int64_t p) { search.write(found[p], fields, words.data() + start[p]); });
    radix_sort(words, 0, fields.bits, threads);
    return unpacked(words, fields, threads);
}

}  // namespace vision3d
