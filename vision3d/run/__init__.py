# SPDX-License-Identifier: Apache-2.0
"""Config, registry, runner loop, run folder and results: everything between a reader and a pipeline."""
