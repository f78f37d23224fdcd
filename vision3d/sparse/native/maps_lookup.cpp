// SPDX-License-Identifier: Apache-2.0
// Rows of given coordinates: a table over the leading bits of the keys, then a binary search in what is left.
#include <algorithm>
#include <stdexcept>

#include "keys.h"
#include "threads.h"

namespace vision3d {
namespace {

constexpr int64_t kWorthATable = 16;  // keys per site asked for, beyond which searching them all is cheaper

/// Keys whose leading bits are b lie in rows [first[b], first[b + 1]).
class Directory {
  public:
    /// Throws std::invalid_argument unless the keys ascend.
    Directory(const int64_t *keys, int64_t n, int threads)
        : lowest_(keys[0]), range_(static_cast<uint64_t>(keys[n - 1]) - static_cast<uint64_t>(lowest_)) {
        while ((range_ >> shift_) >= static_cast<uint64_t>(2 * n)) ++shift_;
        const int64_t buckets = static_cast<int64_t>(range_ >> shift_) + 1;
        first_ = Buffer<int32_t>(buckets + 1);
        const Pieces pieces(n, threads, 1 << 15);
        parallel_for(pieces.count, threads, [&](int64_t p) {
            // The first key of a bucket also closes the empty buckets before it.
            for (int64_t i = pieces.begin(p); i < pieces.end(p); ++i) {
                if (i > 0 && keys[i] <= keys[i - 1]) throw std::invalid_argument("keys must ascend strictly");
                const int64_t before = i > 0 ? bucket(keys[i - 1]) : -1, now = bucket(keys[i]);
                for (int64_t b = before + 1; b <= now; ++b) first_[b] = static_cast<int32_t>(i);
            }
        });
        first_[buckets] = static_cast<int32_t>(n);
    }

    /// Row of a key from the lowest to the highest, or -1.
    int64_t row(const int64_t *keys, int64_t key) const {
        const uint64_t place = static_cast<uint64_t>(key) - static_cast<uint64_t>(lowest_);
        if (place > range_) return -1;
        const int64_t b = static_cast<int64_t>(place >> shift_);
        const int64_t *end = keys + first_[b + 1], *at = std::lower_bound(keys + first_[b], end, key);
        return at != end && *at == key ? at - keys : -1;
    }

  private:
    int64_t bucket(int64_t key) const {
        const uint64_t place = static_cast<uint64_t>(key) - static_cast<uint64_t>(lowest_);
        if (place > range_) throw std::invalid_argument("keys must ascend strictly");
        return static_cast<int64_t>(place >> shift_);
    }

    int64_t lowest_;
    uint64_t range_;
    int shift_ = 0;
    Buffer<int32_t> first_;
};

template <typename Find>
void find_all(const Layout &layout, const Rows &sites, int64_t last_batch, int64_t *found, int threads,
              const Find &find) {
    int64_t places[kMaxColumns];
    places[0] = last_batch + 1;
    for (int c = 1; c < sites.columns; ++c) places[c] = layout.places(c);
    const Pieces pieces(sites.n, threads, 1 << 12);
    parallel_for(pieces.count, threads, [&](int64_t p) {
        for (int64_t i = pieces.begin(p); i < pieces.end(p); ++i) {
            const int32_t *site = sites.data + i * sites.columns;
            uint64_t key = 0;
            bool inside = true;
            for (int c = 0; c < sites.columns; ++c) {
                const int64_t place = site[c] - layout.low[c];
                inside &= place >= 0 && place < places[c];
                key += static_cast<uint64_t>(place) * static_cast<uint64_t>(layout.multiplier[c]);
            }
            found[i] = inside ? find(static_cast<int64_t>(key)) : -1;
        }
    });
}

}  // namespace

void lookup_rows(const int64_t *keys, int64_t n, const Layout &layout, const Rows &sites, int64_t *found, int threads) {
    if (n == 0) {
        std::fill_n(found, sites.n, int64_t(-1));
        return;
    }
    const int64_t last_batch = keys[n - 1] < 0 ? -1 : keys[n - 1] / layout.multiplier[0];
    if (sites.n < n / kWorthATable) {
        find_all(layout, sites, last_batch, found, threads, [&](int64_t key) {
            const int64_t *at = std::lower_bound(keys, keys + n, key);
            return at != keys + n && *at == key ? at - keys : -1;
        });
        return;
    }
    const Directory directory(keys, n, threads);
    find_all(layout, sites, last_batch, found, threads, [&](int64_t key) { return directory.row(keys, key); });
}

}  // namespace vision3d
