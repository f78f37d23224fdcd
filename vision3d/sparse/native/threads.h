// SPDX-License-Identifier: Apache-2.0
// A pool of worker threads. Work is split into tasks whose results do not depend on who runs them.
#pragma once

#include <cstdint>
#include <functional>

namespace vision3d {

constexpr int kMaxThreads = 1024;

/// The number of threads to use where so many were asked for: from 1 to kMaxThreads.
inline int usable_threads(int wanted) { return wanted < 1 ? 1 : wanted < kMaxThreads ? wanted : kMaxThreads; }

/// Runs body(task) for every task in [0, tasks), on at most `threads` threads, the caller being one of them.
/// Tasks are handed out in order. The first exception a task throws is thrown to the caller, after all have ended.
/// Safe to call from several threads (calls take turns) and after fork() (the child makes workers of its own).
/// A call from inside a task runs serially.
void parallel_for(int64_t tasks, int threads, const std::function<void(int64_t)> &body);

}  // namespace vision3d
