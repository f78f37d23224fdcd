// SPDX-License-Identifier: Apache-2.0
#include "buffer.h"

namespace vision3d {
void bind_reduce(nb::module_ &) {}
}  // namespace vision3d
