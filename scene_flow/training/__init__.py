# SPDX-License-Identifier: Apache-2.0
"""Training of flow networks: batches, loop, checkpoints, several processes."""
