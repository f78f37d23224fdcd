// SPDX-License-Identifier: Apache-2.0
// Arrays that cross the border to Python: uninitialised memory, handed over without a copy.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <new>

namespace vision3d {

namespace nb = nanobind;

/// A CPU array that torch reads through DLPack.
template <typename T, int Rank>
using In = nb::ndarray<const T, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;
template <typename T, int Rank>
using Out = nb::ndarray<T, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;

/// Uninitialised, 64-byte aligned.
template <typename T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(int64_t size) : size_(size) {
        const size_t bytes = (static_cast<size_t>(size > 0 ? size : 1) * sizeof(T) + 63) / 64 * 64;
        data_.reset(static_cast<T *>(std::aligned_alloc(64, bytes)));
        if (!data_) throw std::bad_alloc();
    }
    T *data() { return data_.get(); }
    const T *data() const { return data_.get(); }
    int64_t size() const { return size_; }
    T &operator[](int64_t i) { return data_.get()[i]; }
    const T &operator[](int64_t i) const { return data_.get()[i]; }

    /// Gives the memory to Python as an array of this shape (which may be smaller than the buffer).
    nb::ndarray<nb::pytorch, T> release(std::initializer_list<size_t> shape) {
        T *raw = data_.release();
        size_ = 0;
        nb::capsule owner(raw, [](void *p) noexcept { std::free(p); });
        return nb::ndarray<nb::pytorch, T>(raw, shape, owner);
    }

  private:
    struct Free {
        void operator()(T *p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> data_;
    int64_t size_ = 0;
};

}  // namespace vision3d
