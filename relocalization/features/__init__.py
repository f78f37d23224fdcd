# SPDX-License-Identifier: Apache-2.0
"""Local image features behind one interface: see :mod:`relocalization.features.base`."""
