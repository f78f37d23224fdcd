# SPDX-License-Identifier: Apache-2.0
"""One file per data format: a folder, file or URI becomes a sequence of samples, truth kept apart.

Each public module holds ``SPEC`` (a :class:`vision3d.contracts.ReaderSpec`) and is cheap to import. A reader
applies the whole :class:`vision3d.contracts.DataConfig` itself (split, truth, select, size, skip_bad), in this
order, so that whoever opens one gets exactly the samples that were asked for. A source may carry options as a
query: ``folder?fov_deg=60``. No reader knows a task.
"""
