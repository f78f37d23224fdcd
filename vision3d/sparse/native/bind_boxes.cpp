// SPDX-License-Identifier: Apache-2.0
// Rotated boxes for Python: checks every size before the loops see a pointer.
#include "buffer.h"
#include "pair_lists.h"
#include "rotated_iou.h"
#include "threads.h"

namespace vision3d {
namespace {

std::vector<RotatedBox> checked_boxes(In<double, 2> boxes, const char *name) {
    require(boxes.shape(1) == 5, "boxes must have 5 columns");
    return rotated_boxes(boxes.data(), static_cast<int64_t>(boxes.shape(0)), name);
}

void matrix(In<double, 2> a, In<double, 2> b, bool over_union, Out<double, 2> out, int threads) {
    require(out.shape(0) == a.shape(0) && out.shape(1) == b.shape(0), "out must have a row per a and a column per b");
    nb::gil_scoped_release unlocked;
    overlap_matrix(checked_boxes(a, "a"), checked_boxes(b, "b"), over_union, out.data(), usable_threads(threads));
}

void pairs(In<double, 2> a, In<double, 2> b, bool over_union, Out<double, 1> out, int threads) {
    require(a.shape(0) == b.shape(0) && out.shape(0) == a.shape(0), "a, b and out differ in length");
    nb::gil_scoped_release unlocked;
    overlap_pairs(checked_boxes(a, "a"), checked_boxes(b, "b"), over_union, out.data(), usable_threads(threads));
}

void inside(In<double, 2> points, In<double, 2> boxes, Out<uint8_t, 2> out, int threads) {
    require(points.shape(1) == 2, "points must have 2 columns");
    require(out.shape(0) == points.shape(0) && out.shape(1) == boxes.shape(0),
            "out must have a row per point and a column per box");
    nb::gil_scoped_release unlocked;
    points_in_boxes(points.data(), static_cast<int64_t>(points.shape(0)), checked_boxes(boxes, "boxes"), out.data(),
                    usable_threads(threads));
}

void suppress(In<double, 2> boxes, In<int64_t, 1> labels, double limit, Out<uint8_t, 1> kept) {
    require(labels.shape(0) == boxes.shape(0) && kept.shape(0) == boxes.shape(0),
            "boxes, labels and kept differ in length");
    nb::gil_scoped_release unlocked;
    greedy_nms(checked_boxes(boxes, "boxes"), labels.data(), limit, kept.data());
}

}  // namespace

void bind_boxes(nb::module_ &m) {
    m.def("box_overlap_matrix", &matrix, nb::arg("a").noconvert(), nb::arg("b").noconvert(), nb::arg("over_union"),
          nb::arg("out").noconvert(), nb::arg("threads"));
    m.def("box_overlap_pairs", &pairs, nb::arg("a").noconvert(), nb::arg("b").noconvert(), nb::arg("over_union"),
          nb::arg("out").noconvert(), nb::arg("threads"));
    m.def("points_in_boxes", &inside, nb::arg("points").noconvert(), nb::arg("boxes").noconvert(),
          nb::arg("out").noconvert(), nb::arg("threads"));
    m.def("box_nms", &suppress, nb::arg("boxes").noconvert(), nb::arg("labels").noconvert(), nb::arg("limit"),
          nb::arg("kept").noconvert());
}

}  // namespace vision3d
