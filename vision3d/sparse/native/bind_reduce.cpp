// SPDX-License-Identifier: Apache-2.0
// Pooling and segment reductions for Python: checks every size before the loops see a pointer.
#include <optional>
#include <string>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "buffer.h"
#include "pair_lists.h"
#include "reduce.h"
#include "threads.h"

namespace vision3d {
namespace {

template <typename Array>
int64_t extent(const Array &array, size_t axis) {
    return static_cast<int64_t>(array.shape(axis));
}

template <typename T>
void pool(In<T, 2> feats, In<int32_t, 1> pair_in, In<int32_t, 1> pair_out, In<int64_t, 1> list_ptr,
          In<int32_t, 2> block_in, In<int32_t, 2> block_out, int64_t volume, bool mirrored, bool largest, Out<T, 2> out,
          std::optional<Out<int32_t, 2>> source, int threads) {
    PoolArgs<T> a;
    a.n_in = extent(feats, 0);
    a.n_out = extent(out, 0);
    a.channels = extent(feats, 1);
    require(extent(out, 1) == a.channels, "out and feats differ in channels");
    require(!source || (extent(*source, 0) == a.n_out && extent(*source, 1) == a.channels),
            "source must be as large as out");
    a.lists = pair_lists(pair_in, pair_out, list_ptr, block_in, block_out, volume, mirrored, a.n_in, a.n_out);
    if (a.n_out == 0 || a.channels == 0) return;
    a.feats = feats.data();
    a.out = out.data();
    a.source = source ? source->data() : nullptr;
    a.threads = usable_threads(threads);
    nb::gil_scoped_release unlocked;
    if (largest)
        pool_max(a);
    else
        pool_sum(a);
}

/// Segments whose ranges are known to lie inside `order`.
Segments checked_segments(In<int64_t, 1> order, In<int64_t, 1> ptr, int64_t count, int64_t rows, int64_t channels,
                          int threads) {
    require(extent(ptr, 0) == count + 1, "ptr must have one entry more than there are segments");
    require(rows < INT32_MAX, "more than 2^31 - 2 rows");
    const int64_t *p = ptr.data();
    bool ascends = p[0] >= 0 && p[count] <= extent(order, 0);
    for (int64_t i = 0; i < count; ++i) ascends &= p[i] <= p[i + 1];
    require(ascends, "ptr must ascend from 0 or more to at most the length of order");
    return {order.data(), p, count, rows, channels, usable_threads(threads)};
}

Reduction reduction(const std::string &mode) {
    if (mode == "sum") return Reduction::sum;
    if (mode == "mean") return Reduction::mean;
    require(mode == "first", "mode must be sum, mean or first");
    return Reduction::first;
}

template <typename T>
void reduce(In<T, 2> values, In<int64_t, 1> order, In<int64_t, 1> ptr, const std::string &mode, Out<T, 2> out,
            int threads) {
    require(extent(out, 1) == extent(values, 1), "out and values differ in channels");
    const Segments s = checked_segments(order, ptr, extent(out, 0), extent(values, 0), extent(values, 1), threads);
    const Reduction kind = reduction(mode);
    nb::gil_scoped_release unlocked;
    segment_reduce(s, kind, values.data(), out.data());
}

template <typename T>
void largest(In<T, 2> values, In<int64_t, 1> order, In<int64_t, 1> ptr, Out<T, 2> out,
             std::optional<Out<int32_t, 2>> source, int threads) {
    require(extent(out, 1) == extent(values, 1), "out and values differ in channels");
    require(!source || (source->shape(0) == out.shape(0) && source->shape(1) == out.shape(1)),
            "source must be as large as out");
    const Segments s = checked_segments(order, ptr, extent(out, 0), extent(values, 0), extent(values, 1), threads);
    nb::gil_scoped_release unlocked;
    segment_max(s, values.data(), out.data(), source ? source->data() : nullptr);
}

template <typename T>
void spread(In<T, 2> grad, In<int64_t, 1> order, In<int64_t, 1> ptr, const std::string &mode, Out<T, 2> out,
            int threads) {
    require(extent(out, 1) == extent(grad, 1), "out and grad differ in channels");
    const Segments s = checked_segments(order, ptr, extent(grad, 0), extent(out, 0), extent(out, 1), threads);
    const Reduction kind = reduction(mode);
    nb::gil_scoped_release unlocked;
    segment_spread(s, kind, grad.data(), out.data());
}

template <typename T>
void scatter(In<T, 2> grad, In<int32_t, 2> source, Out<T, 2> out, int threads) {
    require(source.shape(0) == grad.shape(0) && source.shape(1) == grad.shape(1), "source must be as large as grad");
    require(extent(out, 1) == extent(grad, 1), "out and grad differ in channels");
    nb::gil_scoped_release unlocked;
    scatter_rows(grad.data(), source.data(), extent(grad, 0), extent(out, 0), extent(out, 1), out.data(),
                 usable_threads(threads));
}

SampleRows checked_samples(In<int64_t, 1> ptr, int64_t rows, int64_t channels, int64_t groups, int threads) {
    const int64_t samples = extent(ptr, 0) - 1;
    require(samples >= 0 && ptr.data()[0] == 0 && ptr.data()[samples] == rows, "ptr must run from 0 to the number of rows");
    for (int64_t b = 0; b < samples; ++b) require(ptr.data()[b] <= ptr.data()[b + 1], "ptr must ascend");
    require(groups >= 1 && channels % groups == 0, "groups must divide the channels");
    return {ptr.data(), samples, channels, groups, usable_threads(threads)};
}

template <typename T>
void norm(In<T, 2> x, In<int64_t, 1> ptr, int64_t groups, std::optional<In<T, 1>> weight, std::optional<In<T, 1>> bias,
          double eps, Out<T, 2> out, Out<T, 2> mean, Out<T, 2> scale, int threads) {
    const int64_t channels = extent(x, 1);
    const SampleRows s = checked_samples(ptr, extent(x, 0), channels, groups, threads);
    require(extent(out, 0) == extent(x, 0) && extent(out, 1) == channels, "out must be as large as x");
    require((!weight || extent(*weight, 0) == channels) && (!bias || extent(*bias, 0) == channels),
            "weight and bias must have one value per channel");
    for (const auto &table : {mean, scale})
        require(extent(table, 0) == s.samples && extent(table, 1) == groups, "mean and scale must be (samples, groups)");
    const T *w = weight ? weight->data() : nullptr, *b = bias ? bias->data() : nullptr;
    nb::gil_scoped_release unlocked;
    sample_norm(s, x.data(), w, b, eps, out.data(), mean.data(), scale.data());
}

template <typename T>
void norm_grad(In<T, 2> grad, In<T, 2> x, In<int64_t, 1> ptr, int64_t groups, std::optional<In<T, 1>> weight,
               In<T, 2> mean, In<T, 2> scale, Out<T, 2> grad_x, Out<T, 1> grad_weight, Out<T, 1> grad_bias, int threads) {
    const int64_t channels = extent(x, 1);
    const SampleRows s = checked_samples(ptr, extent(x, 0), channels, groups, threads);
    require(extent(grad, 0) == extent(x, 0) && extent(grad, 1) == channels, "grad must be as large as x");
    require(extent(grad_x, 0) == extent(x, 0) && extent(grad_x, 1) == channels, "grad_x must be as large as x");
    require((!weight || extent(*weight, 0) == channels) && extent(grad_weight, 0) == channels &&
                extent(grad_bias, 0) == channels,
            "weight, grad_weight and grad_bias must have one value per channel");
    for (const auto &table : {mean, scale})
        require(extent(table, 0) == s.samples && extent(table, 1) == groups, "mean and scale must be (samples, groups)");
    const T *w = weight ? weight->data() : nullptr;
    nb::gil_scoped_release unlocked;
    sample_norm_grad(s, grad.data(), x.data(), w, mean.data(), scale.data(), grad_x.data(), grad_weight.data(),
                     grad_bias.data());
}

template <typename T>
void bind_for(nb::module_ &m) {
    m.def("pool", &pool<T>, nb::arg("feats").noconvert(), nb::arg("pair_in"), nb::arg("pair_out"), nb::arg("list_ptr"),
          nb::arg("block_in"), nb::arg("block_out"), nb::arg("volume"), nb::arg("mirrored"), nb::arg("largest"),
          nb::arg("out").noconvert(), nb::arg("source").none(), nb::arg("threads"));
    m.def("segment_reduce", &reduce<T>, nb::arg("values").noconvert(), nb::arg("order"), nb::arg("ptr"),
          nb::arg("mode"), nb::arg("out").noconvert(), nb::arg("threads"));
    m.def("segment_max", &largest<T>, nb::arg("values").noconvert(), nb::arg("order"), nb::arg("ptr"),
          nb::arg("out").noconvert(), nb::arg("source").none(), nb::arg("threads"));
    m.def("segment_spread", &spread<T>, nb::arg("grad").noconvert(), nb::arg("order"), nb::arg("ptr"), nb::arg("mode"),
          nb::arg("out").noconvert(), nb::arg("threads"));
    m.def("scatter_rows", &scatter<T>, nb::arg("grad").noconvert(), nb::arg("source"), nb::arg("out").noconvert(),
          nb::arg("threads"));
    m.def("sample_norm", &norm<T>, nb::arg("x").noconvert(), nb::arg("ptr"), nb::arg("groups"), nb::arg("weight").none(),
          nb::arg("bias").none(), nb::arg("eps"), nb::arg("out").noconvert(), nb::arg("mean").noconvert(),
          nb::arg("scale").noconvert(), nb::arg("threads"));
    m.def("sample_norm_grad", &norm_grad<T>, nb::arg("grad").noconvert(), nb::arg("x").noconvert(), nb::arg("ptr"),
          nb::arg("groups"), nb::arg("weight").none(), nb::arg("mean").noconvert(), nb::arg("scale").noconvert(),
          nb::arg("grad_x").noconvert(), nb::arg("grad_weight").noconvert(), nb::arg("grad_bias").noconvert(),
          nb::arg("threads"));
}

}  // namespace

void bind_reduce(nb::module_ &m) {
    bind_for<float>(m);
    bind_for<double>(m);
}

}  // namespace vision3d
