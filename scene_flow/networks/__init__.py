# SPDX-License-Identifier: Apache-2.0
"""SCTN, FLOT and the parts they share."""
