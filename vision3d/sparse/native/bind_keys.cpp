// SPDX-License-Identifier: Apache-2.0
// Sorting and looking up coordinates for Python: checks every size before a pointer is used.
#include <stdexcept>

#include "bind_layout.h"
#include "keys.h"

namespace vision3d {
namespace {

nb::tuple sort_coords(In<int32_t, 2> coords, int threads) {
    const Rows rows = checked_rows(coords);
    SortedSites sites;
    Layout layout;
    {
        nb::gil_scoped_release unlocked;
        const Bounds bounds = bounds_of(rows, threads);
        layout = layout_of(rows, bounds);
        sites = sort_sites(rows, bounds, layout, threads);
    }
    const size_t n = static_cast<size_t>(rows.n), columns = static_cast<size_t>(rows.columns);
    return nb::make_tuple(sites.coords.release({n, columns}), sites.order.release({n}), sites.keys.release({n}),
                          layout_array(layout));
}

nb::tuple index_sorted(In<int32_t, 2> coords, int threads) {
    const Rows rows = checked_rows(coords);
    Buffer<int64_t> keys;
    Layout layout;
    {
        nb::gil_scoped_release unlocked;
        layout = layout_of(rows, bounds_of(rows, threads));
        keys = Buffer<int64_t>(rows.n);
        const int64_t row = write_keys(rows, layout, keys.data(), threads);
        if (row >= 0) {
            const int32_t *site = rows.data + row * rows.columns;
            throw std::invalid_argument("coords were promised to ascend strictly, but rows " + std::to_string(row - 1) +
                                        " and " + std::to_string(row) + " are " +
                                        site_text(site - rows.columns, rows.columns) + " and " +
                                        site_text(site, rows.columns));
        }
    }
    return nb::make_tuple(keys.release({static_cast<size_t>(rows.n)}), layout_array(layout));
}

nb::tuple unique_coords(In<int32_t, 2> coords, int threads) {
    const Rows rows = checked_rows(coords);
    UniqueSites sites;
    Layout layout;
    {
        nb::gil_scoped_release unlocked;
        const Bounds bounds = bounds_of(rows, threads);
        layout = layout_of(rows, bounds);
        sites = unique_sites(rows, bounds, layout, threads);
    }
    const size_t n = static_cast<size_t>(rows.n), m = static_cast<size_t>(sites.count);
    return nb::make_tuple(sites.coords.release({m, static_cast<size_t>(rows.columns)}), sites.keys.release({m}),
                          layout_array(layout), sites.inverse.release({n}), sites.order.release({n}),
                          sites.ptr.release({m + 1}));
}

auto lookup(In<int64_t, 1> keys, In<int64_t, 2> layout, In<int32_t, 2> coords, int threads) {
    const Rows sites = checked_rows(coords);
    const Layout box = checked_layout(layout);
    if (box.columns != sites.columns) throw std::invalid_argument("layout and coords differ in their number of columns");
    const int64_t n = checked_keys(keys, box);
    Buffer<int64_t> found(sites.n);
    {
        nb::gil_scoped_release unlocked;
        lookup_rows(keys.data(), n, box, sites, found.data(), threads);
    }
    return found.release({static_cast<size_t>(sites.n)});
}

}  // namespace

void bind_keys(nb::module_ &m) {
    m.def("sort_coords", &sort_coords, nb::arg("coords").noconvert(), nb::arg("threads"));
    m.def("index_sorted", &index_sorted, nb::arg("coords").noconvert(), nb::arg("threads"));
    m.def("unique_coords", &unique_coords, nb::arg("coords").noconvert(), nb::arg("threads"));
    m.def("lookup", &lookup, nb::arg("keys").noconvert(), nb::arg("layout").noconvert(), nb::arg("coords").noconvert(),
          nb::arg("threads"));
}

}  // namespace vision3d
