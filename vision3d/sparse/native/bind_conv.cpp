// SPDX-License-Identifier: Apache-2.0
// Convolution for Python: checks every size before the kernels see a pointer.
#include <optional>

#include <nanobind/stl/optional.h>

#include "buffer.h"
#include "conv.h"
#include "pair_lists.h"
#include "threads.h"

namespace vision3d {
namespace {

template <typename T>
void conv(In<T, 2> feats, In<T, 3> weight, std::optional<In<T, 1>> bias, In<int32_t, 1> pair_in,
          In<int32_t, 1> pair_out, In<int64_t, 1> list_ptr, In<int32_t, 2> block_in, In<int32_t, 2> block_out,
          bool mirrored, int64_t groups, bool transpose_weight, bool relu, Out<T, 2> out, int threads) {
    ConvArgs<T> a;
    a.n_in = static_cast<int64_t>(feats.shape(0));
    a.n_out = static_cast<int64_t>(out.shape(0));
    const int64_t channels_in = static_cast<int64_t>(feats.shape(1)), channels_out = static_cast<int64_t>(out.shape(1));
    require(groups >= 1 && channels_in % groups == 0 && channels_out % groups == 0, "channels are not divisible by groups");
    a.groups = groups;
    a.cin = channels_in / groups;
    a.cout = channels_out / groups;
    const int64_t middle = static_cast<int64_t>(weight.shape(1)), last = static_cast<int64_t>(weight.shape(2));
    require(transpose_weight ? (middle == a.cout && last == channels_in) : (middle == a.cin && last == channels_out),
            "weight does not fit the channels of feats and out");
    require(!bias || static_cast<int64_t>(bias->shape(0)) == channels_out, "bias does not fit the output channels");
    a.lists = pair_lists(pair_in, pair_out, list_ptr, block_in, block_out, static_cast<int64_t>(weight.shape(0)),
                         mirrored, a.n_in, a.n_out);
    if (a.n_out == 0 || channels_out == 0) return;
    a.feats = feats.data();
    a.weight = weight.data();
    a.bias = bias ? bias->data() : nullptr;
    a.out = out.data();
    a.transpose_weight = transpose_weight;
    a.relu = relu;
    a.threads = usable_threads(threads);
    const ConvKernels &kernels = conv_kernels();
    const bool depthwise = a.cin == 1 && a.cout == 1;
    nb::gil_scoped_release unlocked;
    if constexpr (sizeof(T) == 4)
        (depthwise ? kernels.depthwise_f32 : kernels.forward_f32)(a);
    else
        (depthwise ? kernels.depthwise_f64 : kernels.forward_f64)(a);
}

template <typename T>
void conv_grad(In<T, 2> feats, In<T, 2> grad_out, In<int32_t, 1> pair_in, In<int32_t, 1> pair_out,
               In<int64_t, 1> list_ptr, In<int32_t, 2> block_in, In<int32_t, 2> block_out, bool mirrored,
               int64_t groups, Out<T, 3> grad_weight, int threads) {
    GradArgs<T> a;
    a.n_in = static_cast<int64_t>(feats.shape(0));
    a.n_out = static_cast<int64_t>(grad_out.shape(0));
    const int64_t channels_in = static_cast<int64_t>(feats.shape(1)), channels_out = static_cast<int64_t>(grad_out.shape(1));
    require(groups >= 1 && channels_in % groups == 0 && channels_out % groups == 0, "channels are not divisible by groups");
    a.groups = groups;
    a.cin = channels_in / groups;
    a.cout = channels_out / groups;
    require(static_cast<int64_t>(grad_weight.shape(1)) == a.cin && static_cast<int64_t>(grad_weight.shape(2)) == channels_out,
            "grad_weight does not fit the channels of feats and grad_out");
    a.lists = pair_lists(pair_in, pair_out, list_ptr, block_in, block_out, static_cast<int64_t>(grad_weight.shape(0)),
                         mirrored, a.n_in, a.n_out);
    if (grad_weight.size() == 0) return;
    a.feats = feats.data();
    a.grad_out = grad_out.data();
    a.grad_weight = grad_weight.data();
    a.threads = usable_threads(threads);
    const ConvKernels &kernels = conv_kernels();
    const bool depthwise = a.cin == 1 && a.cout == 1;
    nb::gil_scoped_release unlocked;
    if constexpr (sizeof(T) == 4)
        (depthwise ? kernels.depthwise_gradient_f32 : kernels.gradient_f32)(a);
    else
        (depthwise ? kernels.depthwise_gradient_f64 : kernels.gradient_f64)(a);
}

}  // namespace

void bind_conv(nb::module_ &m) {
    m.def("isa", [] { return conv_kernels().isa; }, "Instruction set of the kernels in use.");
    m.def("isa_levels", [] {
        nb::list names;
        for (const ConvKernels *level : kernel_levels()) names.append(level->isa);
        return names;
    }, "Instruction sets that this build and processor have.");
    m.def("conv", &conv<float>, nb::arg("feats").noconvert(), nb::arg("weight").noconvert(), nb::arg("bias").none(),
          nb::arg("pair_in"), nb::arg("pair_out"), nb::arg("list_ptr"), nb::arg("block_in"), nb::arg("block_out"),
          nb::arg("mirrored"), nb::arg("groups"), nb::arg("transpose_weight"), nb::arg("relu"), nb::arg("out").noconvert(),
          nb::arg("threads"));
    m.def("conv", &conv<double>, nb::arg("feats").noconvert(), nb::arg("weight").noconvert(), nb::arg("bias").none(),
          nb::arg("pair_in"), nb::arg("pair_out"), nb::arg("list_ptr"), nb::arg("block_in"), nb::arg("block_out"),
          nb::arg("mirrored"), nb::arg("groups"), nb::arg("transpose_weight"), nb::arg("relu"), nb::arg("out").noconvert(),
          nb::arg("threads"));
    m.def("conv_grad", &conv_grad<float>, nb::arg("feats").noconvert(), nb::arg("grad_out").noconvert(),
          nb::arg("pair_in"), nb::arg("pair_out"), nb::arg("list_ptr"), nb::arg("block_in"), nb::arg("block_out"),
          nb::arg("mirrored"), nb::arg("groups"), nb::arg("grad_weight").noconvert(), nb::arg("threads"));
    m.def("conv_grad", &conv_grad<double>, nb::arg("feats").noconvert(), nb::arg("grad_out").noconvert(),
          nb::arg("pair_in"), nb::arg("pair_out"), nb::arg("list_ptr"), nb::arg("block_in"), nb::arg("block_out"),
          nb::arg("mirrored"), nb::arg("groups"), nb::arg("grad_weight").noconvert(), nb::arg("threads"));
}

}  // namespace vision3d
