// SPDX-License-Identifier: Apache-2.0
// Compiled once per instruction set, in namespace VISION3D_ISA.
#include "conv.h"
#include "kernels/depthwise.h"
#include "kernels/forward.h"
#include "kernels/gradient.h"

namespace vision3d {
namespace VISION3D_ISA {

#define VISION3D_STRING_(x) #x
#define VISION3D_STRING(x) VISION3D_STRING_(x)

const ConvKernels &kernels() {
    static const ConvKernels table = {
        VISION3D_STRING(VISION3D_ISA),   forward<float>,           forward<double>,
        gradient<float>,                 gradient<double>,         depthwise<float>,
        depthwise<double>,               depthwise_gradient<float>, depthwise_gradient<double>,
    };
    return table;
}

}  // namespace VISION3D_ISA
}  // namespace vision3d
