# SPDX-License-Identifier: Apache-2.0
"""An anchor-free detector of oriented boxes."""
