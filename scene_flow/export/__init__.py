# SPDX-License-Identifier: Apache-2.0
"""Flow in public file formats."""
