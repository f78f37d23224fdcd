# SPDX-License-Identifier: Apache-2.0
"""Benchmarks that ship with the package: `vision3d bench`."""
