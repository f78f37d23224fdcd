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
#ifdef VISION3D_HAS_neon
namespace neon {
const ConvKernels &kernels();
}
#endif
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

std::vector<const ConvKernels *> kernel_levels() {
    std::vector<const ConvKernels *> levels{&generic::kernels()};
#ifdef VISION3D_HAS_neon
    levels.push_back(&neon::kernels());
#endif
#ifdef VISION3D_HAS_avx2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) levels.push_back(&avx2::kernels());
#endif
#ifdef VISION3D_HAS_avx512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
        levels.push_back(&avx512::kernels());
#endif
    return levels;
}

namespace {

const ConvKernels &choose() {
    const std::vector<const ConvKernels *> levels = kernel_levels();
    const char *forced = std::getenv("VISION3D_CPU_ISA");
    if (!forced || !*forced) return *levels.back();
    std::string names;
    for (const ConvKernels *level : levels) {
        if (level->isa == std::string(forced)) return *level;
        names += (names.empty() ? "" : ", ") + std::string(level->isa);
    }
    throw std::invalid_argument("VISION3D_CPU_ISA=" + std::string(forced) +
                                " is not a level that this build and processor have; there are: " + names);
}

}  // namespace

const ConvKernels &conv_kernels() {
    static const ConvKernels &chosen = choose();
    return chosen;
}

}  // namespace vision3d
