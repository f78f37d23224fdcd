# SPDX-License-Identifier: Apache-2.0
"""How wrong a flow is."""
