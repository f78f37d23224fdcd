# SPDX-License-Identifier: Apache-2.0
"""Camera relocalization: where was this image taken? FaVoR, its classical baselines, and their evaluation."""
