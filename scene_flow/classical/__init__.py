# SPDX-License-Identifier: Apache-2.0
"""Scene flow without training."""
