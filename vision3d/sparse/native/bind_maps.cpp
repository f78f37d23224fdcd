// SPDX-License-Identifier: Apache-2.0
// Kernel maps for Python: checks every size before a pointer is used.
#include <optional>
#include <stdexcept>
#include <vector>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include "bind_layout.h"
#include "maps.h"

namespace vision3d {
namespace {

using Ints = std::vector<int64_t>;

constexpr int64_t kMaxVolume = int64_t(1) << 20;

Axes checked_axes(const Ints &values, int axes, int64_t smallest, const char *name) {
    if (static_cast<int>(values.size()) != axes)
        throw std::invalid_argument(std::string(name) + " has " + std::to_string(values.size()) + " values for " +
                                    std::to_string(axes) + " axes");
    Axes checked{};
    for (int a = 0; a < axes; ++a) {
        checked[a] = values[a];
        if (checked[a] < smallest || checked[a] > INT32_MAX)
            throw std::invalid_argument(std::string(name) + " must be from " + std::to_string(smallest) +
                                        " to 2^31 - 1, not " + std::to_string(checked[a]));
    }
    return checked;
}

Geometry checked_geometry(int columns, const Ints &kernel, const Ints &stride, const Ints &padding, const Ints &dilation) {
    Geometry g;
    g.axes = columns - 1;
    g.kernel = checked_axes(kernel, g.axes, 1, "kernel_size");
    g.stride = checked_axes(stride, g.axes, 1, "stride");
    g.padding = checked_axes(padding, g.axes, INT32_MIN, "padding");
    g.dilation = checked_axes(dilation, g.axes, 1, "dilation");
    int64_t volume = 1;
    for (int a = 0; a < g.axes; ++a) volume = std::min(volume * g.kernel[a], kMaxVolume + 1);
    if (volume > kMaxVolume) throw std::invalid_argument("kernel_size has more than 2^20 offsets");
    return g;
}

nb::tuple map_arrays(Map &map) {
    const size_t pairs = static_cast<size_t>(map.in.size()), lists = static_cast<size_t>(map.lists);
    return nb::make_tuple(map.in.release({pairs}), map.out.release({pairs}), map.ptr.release({lists + 1}),
                          map.block_in.release({lists, static_cast<size_t>(map.blocks_in) + 1}),
                          map.block_out.release({lists, static_cast<size_t>(map.blocks_out) + 1}));
}

nb::tuple subm(In<int64_t, 1> keys, In<int64_t, 2> layout, const Ints &kernel, const Ints &dilation, int threads) {
    const Layout box = checked_layout(layout);
    const Ints ones(static_cast<size_t>(box.columns) - 1, 1);
    const Geometry geometry = checked_geometry(box.columns, kernel, ones, ones, dilation);
    const int64_t n = checked_keys(keys, box);
    if (geometry.volume() % 2 == 0) throw std::invalid_argument("a submanifold convolution needs an odd kernel_size");
    Map map;
    {
        nb::gil_scoped_release unlocked;
        map = submanifold_map(keys.data(), n, box, geometry, threads);
    }
    return map_arrays(map);
}

nb::tuple pairs(In<int64_t, 1> in_keys, In<int64_t, 2> in_layout, In<int32_t, 2> out_coords, const Ints &kernel,
                const Ints &stride, const Ints &padding, const Ints &dilation, int threads) {
    const Layout box = checked_layout(in_layout);
    const Rows out = checked_rows(out_coords);
    if (box.columns != out.columns) throw std::invalid_argument("in_layout and out_coords differ in their number of columns");
    const Geometry geometry = checked_geometry(box.columns, kernel, stride, padding, dilation);
    const int64_t n = checked_keys(in_keys, box);
    Map map;
    {
        nb::gil_scoped_release unlocked;
        map = pair_map(in_keys.data(), n, box, out, geometry, threads);
    }
    return map_arrays(map);
}

auto sites(In<int32_t, 2> coords, const Ints &kernel, const Ints &stride, const Ints &padding, const Ints &dilation,
           const std::optional<Ints> &shape, bool transposed, int threads) {
    const Rows rows = checked_rows(coords);
    const Geometry geometry = checked_geometry(rows.columns, kernel, stride, padding, dilation);
    Axes bound{};
    if (shape) bound = checked_axes(*shape, geometry.axes, 0, "out_shape");
    Sites found;
    {
        nb::gil_scoped_release unlocked;
        found = output_sites(rows, geometry, shape ? bound.data() : nullptr, transposed, threads);
    }
    return found.coords.release({static_cast<size_t>(found.count), static_cast<size_t>(rows.columns)});
}

}  // namespace

void bind_maps(nb::module_ &m) {
    m.def("subm_map", &subm, nb::arg("keys").noconvert(), nb::arg("layout").noconvert(), nb::arg("kernel_size"),
          nb::arg("dilation"), nb::arg("threads"));
    m.def("pair_map", &pairs, nb::arg("in_keys").noconvert(), nb::arg("in_layout").noconvert(),
          nb::arg("out_coords").noconvert(), nb::arg("kernel_size"), nb::arg("stride"), nb::arg("padding"),
          nb::arg("dilation"), nb::arg("threads"));
    m.def("output_sites", &sites, nb::arg("coords").noconvert(), nb::arg("kernel_size"), nb::arg("stride"),
          nb::arg("padding"), nb::arg("dilation"), nb::arg("out_shape").none(), nb::arg("transposed"),
          nb::arg("threads"));
}

}  // namespace vision3d
