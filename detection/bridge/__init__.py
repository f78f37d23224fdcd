# SPDX-License-Identifier: Apache-2.0
"""Ways to and from other detection toolkits, by files."""
