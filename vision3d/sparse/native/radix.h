// SPDX-License-Identifier: Apache-2.0
// Radix sort of integer keys, least significant digit first: stable, and linear in the number of rows.
#pragma once

#include <cstdint>

#include "buffer.h"

namespace vision3d {

/// A 64-bit key with the row it belongs to, for keys that leave no room for the row in one word.
struct KeyRow {
    uint64_t key;
    uint64_t row;
};

/// Sorts by bits [low, high) of the word, stably. `words` may be exchanged for another buffer of the same size.
void radix_sort(Buffer<uint64_t> &words, int low, int high, int threads);

/// Sorts by bits [0, high) of the key, stably.
void radix_sort(Buffer<KeyRow> &pairs, int high, int threads);

}  // namespace vision3d
