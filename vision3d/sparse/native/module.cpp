// SPDX-License-Identifier: Apache-2.0
// The Python module: one bind_* function per topic.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace vision3d {
void bind_keys(nb::module_ &m);
void bind_maps(nb::module_ &m);
void bind_conv(nb::module_ &m);
void bind_reduce(nb::module_ &m);
void bind_boxes(nb::module_ &m);
}  // namespace vision3d

NB_MODULE(_native, m) {
    m.doc() = "vision3d's sparse engine, and the overlap of rotated boxes. Plain pointers, no torch.";
    vision3d::bind_keys(m);
    vision3d::bind_maps(m);
    vision3d::bind_conv(m);
    vision3d::bind_reduce(m);
    vision3d::bind_boxes(m);
}
