// SPDX-License-Identifier: Apache-2.0
// Coordinates, layouts and geometries as Python hands them over.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>

#include "buffer.h"
#include "keys.h"

namespace vision3d {

inline Rows checked_rows(In<int32_t, 2> coords) {
    const int64_t n = static_cast<int64_t>(coords.shape(0)), columns = static_cast<int64_t>(coords.shape(1));
    if (columns < 2 || columns > kMaxColumns)
        throw std::invalid_argument("coords must have 2 to 5 columns, batch first, not " + std::to_string(columns));
    if (n > kMaxRows) throw std::invalid_argument("coords has more than 2^31 - 2 rows: " + std::to_string(n));
    return {coords.data(), n, static_cast<int>(columns)};
}

inline Layout checked_layout(In<int64_t, 2> layout) {
    const int64_t columns = static_cast<int64_t>(layout.shape(1));
    if (layout.shape(0) != 2 || columns < 2 || columns > kMaxColumns)
        throw std::invalid_argument("layout must be (2, 1 + D)");
    Layout box;
    box.columns = static_cast<int>(columns);
    for (int c = 0; c < box.columns; ++c) {
        box.low[c] = layout.data()[c];
        box.multiplier[c] = layout.data()[columns + c];
        if (box.low[c] < INT32_MIN || box.low[c] > INT32_MAX)
            throw std::invalid_argument("layout: a minimum is not an int32 value");
        if (box.multiplier[c] < 1 || (c > 0 && box.multiplier[c] > box.multiplier[c - 1]))
            throw std::invalid_argument("layout: multipliers must be positive and must not ascend");
    }
    if (box.multiplier[box.columns - 1] != 1) throw std::invalid_argument("layout: the last multiplier must be 1");
    return box;
}

/// Sorted keys that may belong to the layout: with the guard behind them they end below 2^63, so that sums of a key and
/// a step do not overflow. Their order is checked where they are read.
inline int64_t checked_keys(In<int64_t, 1> keys, const Layout &layout) {
    const int64_t n = static_cast<int64_t>(keys.shape(0));
    if (n > kMaxRows) throw std::invalid_argument("keys has more than 2^31 - 2 rows: " + std::to_string(n));
    if (n > 0 && keys.data()[n - 1] / layout.multiplier[0] >= INT64_MAX / layout.multiplier[0])
        throw std::invalid_argument("keys do not belong to the layout: the last one is " +
                                    std::to_string(keys.data()[n - 1]));
    return n;
}

inline auto layout_array(const Layout &layout) {
    Buffer<int64_t> values(2 * layout.columns);
    std::copy_n(layout.low, layout.columns, values.data());
    std::copy_n(layout.multiplier, layout.columns, values.data() + layout.columns);
    return values.release({2, static_cast<size_t>(layout.columns)});
}

}  // namespace vision3d
