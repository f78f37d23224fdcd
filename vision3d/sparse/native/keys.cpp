// SPDX-License-Identifier: Apache-2.0
#include "keys.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "threads.h"

namespace vision3d {
namespace {

constexpr int64_t kPieceRows = 1 << 14;  // rows that pay for waking a thread

template <int C>
void piece_bounds(const int32_t *rows, int64_t n, int32_t *low, int32_t *high) {
    for (int c = 0; c < C; ++c) low[c] = high[c] = rows[c];
    for (int64_t i = 1; i < n; ++i)
        for (int c = 0; c < C; ++c) {
            low[c] = std::min(low[c], rows[i * C + c]);
            high[c] = std::max(high[c], rows[i * C + c]);
        }
}

template <int C>
inline uint64_t packed(const Fields &f, const int32_t *row) {
    uint64_t key = 0;
    for (int c = 0; c < C; ++c) key |= static_cast<uint64_t>(row[c] - f.low[c]) << f.shift[c];
    return key;
}

/// Calls f with the number of columns as a constant.
template <typename F>
decltype(auto) with_columns(int columns, F &&f) {
    switch (columns) {
        case 2: return f(std::integral_constant<int, 2>());
        case 3: return f(std::integral_constant<int, 3>());
        case 4: return f(std::integral_constant<int, 4>());
        case 5: return f(std::integral_constant<int, 5>());
    }
    throw std::invalid_argument("coords must have 2 to 5 columns, batch first");
}

/// Calls f with two functions: packed fields and input row of sorted place i.
template <typename F>
decltype(auto) with_sorted(const SortedRows &sorted, F &&f) {
    if (sorted.wide) {
        const KeyRow *pairs = sorted.pairs.data();
        return f([pairs](int64_t i) { return pairs[i].key; },
                 [pairs](int64_t i) { return static_cast<int64_t>(pairs[i].row); });
    }
    const uint64_t *words = sorted.words.data();
    const int bits = sorted.row_bits;
    const uint64_t mask = (uint64_t(1) << bits) - 1;
    return f([words, bits](int64_t i) { return words[i] >> bits; },
             [words, mask](int64_t i) { return static_cast<int64_t>(words[i] & mask); });
}

int bits_for(uint64_t largest) {
    int bits = 0;
    while (largest >> bits) ++bits;  // largest < 2^33, so the shift stays below 64
    return bits;
}

/// Writes the coordinates of packed fields and returns their key.
template <int C>
inline int64_t unpack(const Fields &f, const Layout &layout, uint64_t key, int32_t *row) {
    uint64_t sum = 0;
    for (int c = 0; c < C; ++c) {
        const uint64_t place = (key >> f.shift[c]) & f.mask[c];
        row[c] = static_cast<int32_t>(f.low[c] + static_cast<int64_t>(place));
        sum += place * static_cast<uint64_t>(layout.multiplier[c]);
    }
    return static_cast<int64_t>(sum);
}

}  // namespace

Pieces::Pieces(int64_t rows, int threads, int64_t smallest, int64_t unit) : n(rows) {
    const int64_t wanted = threads <= 1 ? 1 : std::clamp<int64_t>(rows / smallest, 1, 4 * usable_threads(threads));
    size = std::max<int64_t>(1, ((rows + wanted - 1) / wanted + unit - 1) / unit * unit);
    count = (rows + size - 1) / size;
}

Bounds bounds_of(const Rows &rows, int threads) {
    Bounds all;
    if (rows.n == 0) return all;
    const Pieces pieces(rows.n, threads, kPieceRows);
    std::vector<int32_t> found(static_cast<size_t>(pieces.count) * 2 * kMaxColumns);
    with_columns(rows.columns, [&](auto columns) {
        parallel_for(pieces.count, threads, [&](int64_t p) {
            int32_t *at = found.data() + p * 2 * kMaxColumns;
            int32_t low[kMaxColumns], high[kMaxColumns];
            const int64_t begin = pieces.begin(p);
            piece_bounds<columns>(rows.data + begin * columns, pieces.end(p) - begin, low, high);
            std::copy_n(low, rows.columns, at);
            std::copy_n(high, rows.columns, at + kMaxColumns);
        });
    });
    for (int c = 0; c < rows.columns; ++c) {
        all.low[c] = found[c];
        all.high[c] = found[kMaxColumns + c];
        for (int64_t p = 1; p < pieces.count; ++p) {
            all.low[c] = std::min<int64_t>(all.low[c], found[p * 2 * kMaxColumns + c]);
            all.high[c] = std::max<int64_t>(all.high[c], found[p * 2 * kMaxColumns + kMaxColumns + c]);
        }
    }
    return all;
}

std::string site_text(const int32_t *site, int columns) {
    std::string text = "(";
    for (int c = 0; c < columns; ++c) text += (c ? ", " : "") + std::to_string(site[c]);
    return text + ")";
}

void check_batches(const Rows &rows, const Bounds &bounds) {
    if (bounds.low[0] >= 0) return;
    int64_t row = 0;
    while (rows.data[row * rows.columns] >= 0) ++row;
    throw std::invalid_argument("coords row " + std::to_string(row) + " has the negative batch index " +
                                std::to_string(rows.data[row * rows.columns]));
}

Layout layout_of(const Rows &rows, const Bounds &bounds) {
    Layout layout;
    layout.columns = rows.columns;
    check_batches(rows, bounds);
    constexpr uint64_t limit = uint64_t(1) << 63;
    uint64_t product = 1;
    bool fits = true;
    for (int c = rows.columns - 1; c >= 0; --c) {
        layout.low[c] = bounds.low[c];
        layout.multiplier[c] = static_cast<int64_t>(product);
        const uint64_t extent = static_cast<uint64_t>(bounds.high[c] - bounds.low[c] + 1);
        const uint64_t places = c == 0 ? extent : 2 * extent - 1;
        fits = fits && product <= (limit - 1) / places;
        product = fits ? product * places : limit - 1;
    }
    if (!fits) {
        std::string text;
        for (int c = 0; c < rows.columns; ++c)
            text += (c ? ", " : "") + std::to_string(bounds.high[c] - bounds.low[c] + 1);
        throw std::invalid_argument("the extent of coords is too large for 64-bit keys: [" + text +
                                    "] (batch first); split the cloud");
    }
    return layout;
}

Fields::Fields(const Bounds &bounds, int columns_) : columns(columns_) {
    for (int c = columns - 1; c >= 0; --c) {
        const int width = bits_for(static_cast<uint64_t>(bounds.high[c] - bounds.low[c]));
        low[c] = bounds.low[c];
        shift[c] = width ? bits : 0;  // an empty field must not be shifted by 64
        mask[c] = (uint64_t(1) << width) - 1;
        bits += width;
    }
}

SortedRows sort_rows(const Rows &rows, const Bounds &bounds, int threads) {
    SortedRows sorted{Fields(bounds, rows.columns), 0, {}, {}, false};
    sorted.row_bits = bits_for(static_cast<uint64_t>(rows.n > 0 ? rows.n - 1 : 0));
    sorted.wide = sorted.fields.bits + sorted.row_bits > 64 || sorted.row_bits == 0;
    const Fields &fields = sorted.fields;
    const Pieces pieces(rows.n, threads, kPieceRows);
    if (sorted.wide)
        sorted.pairs = Buffer<KeyRow>(rows.n);
    else
        sorted.words = Buffer<uint64_t>(rows.n);
    std::atomic<bool> ascending{true};
    with_columns(rows.columns, [&](auto columns) {
        parallel_for(pieces.count, threads, [&](int64_t p) {
            const int64_t begin = pieces.begin(p), end = pieces.end(p);
            uint64_t last = begin > 0 ? packed<columns>(fields, rows.data + (begin - 1) * columns) : 0;
            uint64_t descents = 0;
            for (int64_t i = begin; i < end; ++i) {
                const uint64_t key = packed<columns>(fields, rows.data + i * columns);
                descents |= static_cast<uint64_t>(key < last);
                last = key;
                if (sorted.wide)
                    sorted.pairs[i] = {key, static_cast<uint64_t>(i)};
                else
                    sorted.words[i] = key << sorted.row_bits | static_cast<uint64_t>(i);
            }
            if (descents) ascending.store(false, std::memory_order_relaxed);
        });
    });
    if (ascending.load()) return sorted;
    if (sorted.wide)
        radix_sort(sorted.pairs, fields.bits, threads);
    else
        radix_sort(sorted.words, sorted.row_bits, sorted.row_bits + fields.bits, threads);
    return sorted;
}

int64_t write_keys(const Rows &rows, const Layout &layout, int64_t *keys, int threads) {
    const Pieces pieces(rows.n, threads, kPieceRows);
    std::vector<int64_t> bad(static_cast<size_t>(pieces.count), -1);
    with_columns(rows.columns, [&](auto columns) {
        const auto key_at = [&](int64_t i) {
            uint64_t key = 0;
            for (int c = 0; c < columns; ++c)
                key += static_cast<uint64_t>(rows.data[i * columns + c] - layout.low[c]) *
                       static_cast<uint64_t>(layout.multiplier[c]);
            return static_cast<int64_t>(key);
        };
        parallel_for(pieces.count, threads, [&](int64_t p) {
            const int64_t begin = pieces.begin(p);
            int64_t last = begin > 0 ? key_at(begin - 1) : -1;
            for (int64_t i = begin; i < pieces.end(p); ++i) {
                const int64_t key = key_at(i);
                if (key <= last && bad[p] < 0) bad[p] = i;
                keys[i] = last = key;
            }
        });
    });
    for (const int64_t row : bad)
        if (row >= 0) return row;
    return -1;
}

SortedSites sort_sites(const Rows &rows, const Bounds &bounds, const Layout &layout, int threads) {
    const SortedRows sorted = sort_rows(rows, bounds, threads);
    SortedSites sites{Buffer<int32_t>(rows.n * rows.columns), Buffer<int64_t>(rows.n), Buffer<int64_t>(rows.n)};
    const Pieces pieces(rows.n, threads, kPieceRows);
    std::vector<int64_t> bad(static_cast<size_t>(pieces.count), -1);
    with_columns(rows.columns, [&](auto columns) {
        with_sorted(sorted, [&](auto key, auto row) {
            parallel_for(pieces.count, threads, [&](int64_t p) {
                const int64_t begin = pieces.begin(p), end = pieces.end(p);
                uint64_t equal = 0, last = begin > 0 ? key(begin - 1) : ~key(begin);
                for (int64_t i = begin; i < end; ++i) {
                    const uint64_t now = key(i);
                    equal |= static_cast<uint64_t>(now == last);
                    last = now;
                    sites.keys[i] = unpack<columns>(sorted.fields, layout, now, sites.coords.data() + i * columns);
                    sites.order[i] = row(i);
                }
                for (int64_t i = std::max<int64_t>(begin, 1); equal && i < end && bad[p] < 0; ++i)
                    if (key(i) == key(i - 1)) bad[p] = i;
            });
        });
    });
    for (const int64_t at : bad)
        if (at >= 0)
            throw std::invalid_argument("coords rows " + std::to_string(sites.order[at - 1]) + " and " +
                                        std::to_string(sites.order[at]) + " are both " +
                                        site_text(sites.coords.data() + at * rows.columns, rows.columns) +
                                        "; merge duplicates first, for instance with vision3d.sparse.voxelize");
    return sites;
}

UniqueSites unique_sites(const Rows &rows, const Bounds &bounds, const Layout &layout, int threads) {
    const SortedRows sorted = sort_rows(rows, bounds, threads);
    const int64_t n = rows.n;
    const Pieces pieces(n, threads, kPieceRows);
    std::vector<int64_t> first(static_cast<size_t>(pieces.count) + 1, 0);
    UniqueSites sites;
    sites.inverse = Buffer<int64_t>(n);
    sites.order = Buffer<int64_t>(n);
    with_sorted(sorted, [&](auto key, auto row) {
        parallel_for(pieces.count, threads, [&](int64_t p) {
            int64_t count = 0;
            for (int64_t i = pieces.begin(p); i < pieces.end(p); ++i) count += i == 0 || key(i) != key(i - 1);
            first[p + 1] = count;
        });
        for (int64_t p = 0; p < pieces.count; ++p) first[p + 1] += first[p];
        sites.count = first[pieces.count];
        sites.coords = Buffer<int32_t>(sites.count * rows.columns);
        sites.keys = Buffer<int64_t>(sites.count);
        sites.ptr = Buffer<int64_t>(sites.count + 1);
        sites.ptr[sites.count] = n;
        with_columns(rows.columns, [&](auto columns) {
            parallel_for(pieces.count, threads, [&](int64_t p) {
                int64_t at = first[p] - 1;
                for (int64_t i = pieces.begin(p); i < pieces.end(p); ++i) {
                    if (i == 0 || key(i) != key(i - 1)) {
                        ++at;
                        sites.ptr[at] = i;
                        int32_t *site = sites.coords.data() + at * columns;
                        sites.keys[at] = unpack<columns>(sorted.fields, layout, key(i), site);
                    }
                    sites.order[i] = row(i);
                    sites.inverse[row(i)] = at;
                }
            });
        });
    });
    return sites;
}

}  // namespace vision3d
