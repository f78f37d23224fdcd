// SPDX-License-Identifier: Apache-2.0
// A kernel map's tensors as lists of pairs, checked before anything reads through them.
#pragma once

#include <stdexcept>
#include <vector>

#include "buffer.h"
#include "conv.h"

namespace vision3d {

inline void require(bool ok, const char *what) {
    if (!ok) throw std::invalid_argument(what);
}

/// The six tensors of a kernel map as lists per kernel offset; every range inside the arrays is checked here, the row
/// numbers themselves when they are used.
inline std::vector<PairList> pair_lists(In<int32_t, 1> pair_in, In<int32_t, 1> pair_out, In<int64_t, 1> list_ptr,
                                        In<int32_t, 2> block_in, In<int32_t, 2> block_out, int64_t volume,
                                        bool mirrored, int64_t n_in, int64_t n_out) {
    const int64_t lists = static_cast<int64_t>(list_ptr.shape(0)) - 1, pairs = static_cast<int64_t>(pair_in.shape(0));
    require(pair_out.shape(0) == pair_in.shape(0), "kernel map: pair_in and pair_out differ in length");
    require(volume >= 1 && lists == (mirrored ? (volume - 1) / 2 : volume),
            "kernel map and weight differ in their number of kernel offsets");
    require(!mirrored || volume % 2 == 1, "a mirrored kernel map needs an odd kernel volume");
    require(!mirrored || n_in == n_out, "a mirrored kernel map has as many inputs as outputs");
    require(n_in < INT32_MAX && n_out < INT32_MAX, "more than 2^31 - 2 rows");
    const int64_t *ptr = list_ptr.data();
    require(ptr[0] == 0 && ptr[lists] == pairs, "kernel map: list_ptr does not span the pairs");
    for (int64_t l = 0; l < lists; ++l)
        require(ptr[l] <= ptr[l + 1] && ptr[l] >= 0 && ptr[l + 1] <= pairs, "kernel map: list_ptr descends");
    const auto check_blocks = [&](In<int32_t, 2> table, int64_t rows) {
        const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
        require(static_cast<int64_t>(table.shape(0)) == lists && static_cast<int64_t>(table.shape(1)) == blocks + 1,
                "kernel map: a block table has the wrong shape for the number of rows");
        for (int64_t l = 0; l < lists; ++l) {
            const int32_t *t = table.data() + l * (blocks + 1);
            bool ok = t[0] == 0 && t[blocks] == ptr[l + 1] - ptr[l];
            for (int64_t b = 0; b < blocks; ++b) ok &= t[b] <= t[b + 1];
            require(ok, "kernel map: a block table does not span its list");
        }
        return blocks + 1;
    };
    const int64_t stride_out = check_blocks(block_out, n_out);
    const int64_t stride_in = mirrored ? check_blocks(block_in, n_in) : 0;
    std::vector<PairList> result(static_cast<size_t>(volume));
    const int64_t centre = volume / 2;
    for (int64_t k = 0; k < volume; ++k) {
        if (mirrored && k == centre) continue;
        const bool swapped = mirrored && k < centre;
        const int64_t l = !mirrored ? k : swapped ? centre - 1 - k : k - centre - 1;
        const int32_t *in = pair_in.data() + ptr[l], *out = pair_out.data() + ptr[l];
        result[k].in = swapped ? out : in;
        result[k].out = swapped ? in : out;
        result[k].block = swapped ? block_in.data() + l * stride_in : block_out.data() + l * stride_out;
    }
    return result;
}

}  // namespace vision3d
