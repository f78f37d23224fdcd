# SPDX-License-Identifier: Apache-2.0
"""Large images: tiles, merging, submission files."""
