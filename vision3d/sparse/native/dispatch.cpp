// SPDX-License-Identifier: Apache-2.0
// Which build of the kernels runs here: asked of the processor once, or forced by VISION3D_CPU_ISA.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "conv.h"

namespace vision3d {

namespace generic {
const ConvKernels &kernels();
}
#ifdef VISION3D_HAS_avx2
namespace avx2 {
const ConvKernels &kernels();
}
#endif
#ifdef VISION3D_HAS_avx512
namespace avx512 {
const ConvKernels &kernels();
}
#endif

namespace {

bool runs_avx2() {
#ifdef VISION3D_HAS_avx2
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

bool runs_avx512() {
#ifdef VISION3D_HAS_avx512
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
#else
    return false;
#endif
}

const ConvKernels &choose() {
    const char *forced = std::getenv("VISION3D_CPU_ISA");
    const std::string level = forced && *forced ? forced : runs_avx512() ? "avx512" : runs_avx2() ? "avx2" : "generic";
    if (level == "generic") return generic::kernels();
#ifdef VISION3D_HAS_avx2
    if (level == "avx2" && runs_avx2()) return avx2::kernels();
#endif
#ifdef VISION3D_HAS_avx512
    if (level == "avx512" && runs_avx512()) return avx512::kernels();
#endif
    throw std::invalid_argument("VISION3D_CPU_ISA=" + level + " is not a level this build and processor have; there are: generic" +
                                (runs_avx2() ? ", avx2" : "") + (runs_avx512() ? ", avx512" : ""));
}

}  // namespace

const ConvKernels &conv_kernels() {
    static const ConvKernels &chosen = choose();
    return chosen;
}

}  // namespace vision3d
