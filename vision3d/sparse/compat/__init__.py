# SPDX-License-Identifier: Apache-2.0
"""Weights of other engines: spconv, MinkowskiEngine, torchsparse, and torch's dense convolutions.

::

    state = safetensors.torch.load_file("minkunet.safetensors")        # or torch.load(..., weights_only=True)
    net.load_state_dict(compat.from_minkowski(state, net, axes="reversed"))

Build the net of our layers first; it tells which tensor is which kernel. Geometry is not in a state dict, so it has to
be given as the other engine computes it: MinkowskiEngine centres odd kernels (``padding=kernel_size // 2``) and leaves
even ones where they are (``padding=0``), and its strided layers want ``out_rule="floor"``.

**Axes.** A kernel's axes follow the columns of the coordinates. Ours are (batch, z, y, x), and spconv's users mostly
write theirs so; MinkowskiEngine and torchsparse write (batch, x, y, z). ``axes`` says what becomes of a net trained on
columns (batch, a, b, c):

- "same": coordinates are given to our net as they were to theirs, (batch, a, b, c);
- "reversed": in the opposite order, (batch, c, b, a). A net trained on (batch, x, y, z) then takes (batch, z, y, x).

MinkowskiEngine numbers the offsets of a 3 x 3 x 3 kernel with a running fastest: offset number 1 is its neighbour
(a, b, c) = (0, -1, -1). Our number 1 is the tap (-1, -1, 0), the last column running fastest. Under "reversed" the last
column is a, the numbers agree, and the tensor is taken as it is; under "same" its axes are turned round.
"""

from vision3d.sparse.compat.state_dict import (
    convert_state_dict,
    export_state_dict,
    from_dense,
    from_minkowski,
    from_spconv,
    from_torchsparse,
    to_spconv,
)

__all__ = [
    "convert_state_dict",
    "export_state_dict",
    "from_dense",
    "from_minkowski",
    "from_spconv",
    "from_torchsparse",
    "to_spconv",
]
