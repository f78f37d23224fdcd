# SPDX-License-Identifier: Apache-2.0
"""From one point per object to an oriented box."""
