# SPDX-License-Identifier: Apache-2.0
"""Many tiny dense grids of any field, scattered sparsely through space, and rendering along rays through them."""
