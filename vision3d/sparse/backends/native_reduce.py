# SPDX-License-Identifier: Apache-2.0
"""Stand-in until the compiled reductions land."""

from vision3d.sparse.backends.reference import ReferenceBackend

pool = ReferenceBackend().pool
segment_reduce = ReferenceBackend().segment_reduce
