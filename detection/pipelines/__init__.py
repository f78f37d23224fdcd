# SPDX-License-Identifier: Apache-2.0
"""Pipelines of the runner."""
