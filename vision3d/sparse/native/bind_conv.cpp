// SPDX-License-Identifier: Apache-2.0
// Convolution for Python: checks every size before the kernels see a pointer.
#include <optional>
#include <stdexcept>
#include <string>

#include <nanobind/stl/optional.h>

#include "buffer.h"
#include "conv.h"

namespace vision3d {
namespace {

void require(bool ok, const char *what) {
    if (!ok) throw std::invalid_argument(what);
}

/// The six tensors of a kernel map as lists per kernel offset; every range inside the arrays is checked here, the row
/// numbers themselves when they are used.
std::vector<PairList> pair_lists(In<int32_t, 1> pair_in, In<int32_t, 1> pair_out, In<int64_t, 1> list_ptr,
                                 In<int32_t, 2> block_in, In<int32_t, 2> block_out, int64_t volume, bool mirrored,
                                 int64_t n_in, int64_t n_out) {
    const int64_t lists = static_cast<int64_t>(list_ptr.shape(0)) - 1, pairs = static_cast<int64_t>(pair_in.shape(0));
    require(pair_out.shape(0) == pair_in.shape(0), "kernel map: pair_in and pair_out differ in length");
    require(volume >= 1 && lists == (mirrored ? (volume - 1) / 2 : volume),
            "kernel map and weight differ in their number of kernel offsets");
    require(!mirrored || volume % 2 == 1, "a mirrored kernel map needs an odd kernel volume");
    require(!mirrored || n_in == n_out, "a mirrored kernel map has as many inputs as outputs");
    require(n_in < INT32_MAX && n_out < INT32_MAX, "more than 2^31 - 2 rows");
    const int64_t *ptr = list_ptr.data();
    require(ptr[0] == 0 && ptr[lists] == pairs, "kernel map: list_ptr does not span the pairs");
    for (int64_t l = 0; l < lists; ++l) require(ptr[l] <= ptr[l + 1] && ptr[l] >= 0 && ptr[l + 1] <= pairs, "kernel map: list_ptr descends");
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
    a.threads = threads < 1 ? 1 : threads;
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
    a.feats = feats.data();
    a.grad_out = grad_out.data();
    a.grad_weight = grad_weight.data();
    a.threads = threads < 1 ? 1 : threads;
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
