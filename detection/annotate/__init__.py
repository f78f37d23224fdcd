# SPDX-License-Identifier: Apache-2.0
"""A page in the browser to click one point per object: what the training from points starts with."""
