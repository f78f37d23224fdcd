# SPDX-License-Identifier: Apache-2.0
"""Average precision and what stands beside it."""
