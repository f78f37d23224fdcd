// SPDX-License-Identifier: Apache-2.0
// One vector type per instruction set; the kernels are written once over it.
#pragma once

#include <cstdint>

// The level called generic is plain C++ whatever the compiler's flags would allow.
#if defined(VISION3D_PLAIN)
#elif defined(__AVX512F__)
#define VISION3D_AVX512
#include <immintrin.h>
#elif defined(__AVX2__) && defined(__FMA__)
#define VISION3D_AVX2
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#define VISION3D_NEON
#include <arm_neon.h>
#endif

#if defined(_MSC_VER)
#define VISION3D_INLINE __forceinline
#else
#define VISION3D_INLINE inline __attribute__((always_inline))
#endif

namespace vision3d {
namespace VISION3D_ISA {

template <typename T>
struct Vec;

VISION3D_INLINE void prefetch(const void *p) {
#if defined(__GNUC__)
    __builtin_prefetch(p);
#else
    (void)p;
#endif
}

#if defined(VISION3D_AVX512)

template <>
struct Vec<float> {
    static constexpr int width = 16;
    __m512 v;
    static VISION3D_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
    static VISION3D_INLINE Vec load(const float *p) { return {_mm512_loadu_ps(p)}; }
    static VISION3D_INLINE Vec splat(float x) { return {_mm512_set1_ps(x)}; }
    VISION3D_INLINE void store(float *p) const { _mm512_storeu_ps(p, v); }
    VISION3D_INLINE void fma(Vec a, Vec b) { v = _mm512_fmadd_ps(a.v, b.v, v); }
    VISION3D_INLINE Vec add(Vec o) const { return {_mm512_add_ps(v, o.v)}; }
    VISION3D_INLINE Vec max(Vec o) const { return {_mm512_max_ps(v, o.v)}; }
};

template <>
struct Vec<double> {
    static constexpr int width = 8;
    __m512d v;
    static VISION3D_INLINE Vec zero() { return {_mm512_setzero_pd()}; }
    static VISION3D_INLINE Vec load(const double *p) { return {_mm512_loadu_pd(p)}; }
    static VISION3D_INLINE Vec splat(double x) { return {_mm512_set1_pd(x)}; }
    VISION3D_INLINE void store(double *p) const { _mm512_storeu_pd(p, v); }
    VISION3D_INLINE void fma(Vec a, Vec b) { v = _mm512_fmadd_pd(a.v, b.v, v); }
    VISION3D_INLINE Vec add(Vec o) const { return {_mm512_add_pd(v, o.v)}; }
    VISION3D_INLINE Vec max(Vec o) const { return {_mm512_max_pd(v, o.v)}; }
};

#elif defined(VISION3D_AVX2)

template <>
struct Vec<float> {
    static constexpr int width = 8;
    __m256 v;
    static VISION3D_INLINE Vec zero() { return {_mm256_setzero_ps()}; }
    static VISION3D_INLINE Vec load(const float *p) { return {_mm256_loadu_ps(p)}; }
    static VISION3D_INLINE Vec splat(float x) { return {_mm256_set1_ps(x)}; }
    VISION3D_INLINE void store(float *p) const { _mm256_storeu_ps(p, v); }
    VISION3D_INLINE void fma(Vec a, Vec b) { v = _mm256_fmadd_ps(a.v, b.v, v); }
    VISION3D_INLINE Vec add(Vec o) const { return {_mm256_add_ps(v, o.v)}; }
    VISION3D_INLINE Vec max(Vec o) const { return {_mm256_max_ps(v, o.v)}; }
};

template <>
struct Vec<double> {
    static constexpr int width = 4;
    __m256d v;
    static VISION3D_INLINE Vec zero() { return {_mm256_setzero_pd()}; }
    static VISION3D_INLINE Vec load(const double *p) { return {_mm256_loadu_pd(p)}; }
    static VISION3D_INLINE Vec splat(double x) { return {_mm256_set1_pd(x)}; }
    VISION3D_INLINE void store(double *p) const { _mm256_storeu_pd(p, v); }
    VISION3D_INLINE void fma(Vec a, Vec b) { v = _mm256_fmadd_pd(a.v, b.v, v); }
    VISION3D_INLINE Vec add(Vec o) const { return {_mm256_add_pd(v, o.v)}; }
    VISION3D_INLINE Vec max(Vec o) const { return {_mm256_max_pd(v, o.v)}; }
};

#elif defined(VISION3D_NEON)

template <>
struct Vec<float> {
    static constexpr int width = 4;
    float32x4_t v;
    static VISION3D_INLINE Vec zero() { return {vdupq_n_f32(0)}; }
    static VISION3D_INLINE Vec load(const float *p) { return {vld1q_f32(p)}; }
    static VISION3D_INLINE Vec splat(float x) { return {vdupq_n_f32(x)}; }
    VISION3D_INLINE void store(float *p) const { vst1q_f32(p, v); }
    VISION3D_INLINE void fma(Vec a, Vec b) { v = vfmaq_f32(v, a.v, b.v); }
    VISION3D_INLINE Vec add(Vec o) const { return {vaddq_f32(v, o.v)}; }
    VISION3D_INLINE Vec max(Vec o) const { return {vmaxq_f32(v, o.v)}; }
};

template <>
struct Vec<double> {
    static constexpr int width = 2;
    float64x2_t v;
    static VISION3D_INLINE Vec zero() { return {vdupq_n_f64(0)}; }
    static VISION3D_INLINE Vec load(const double *p) { return {vld1q_f64(p)}; }
    static VISION3D_INLINE Vec splat(double x) { return {vdupq_n_f64(x)}; }
    VISION3D_INLINE void store(double *p) const { vst1q_f64(p, v); }
    VISION3D_INLINE void fma(Vec a, Vec b) { v = vfmaq_f64(v, a.v, b.v); }
    VISION3D_INLINE Vec add(Vec o) const { return {vaddq_f64(v, o.v)}; }
    VISION3D_INLINE Vec max(Vec o) const { return {vmaxq_f64(v, o.v)}; }
};

#else

// Plain C++: small loops that a compiler can map to whatever the baseline offers (SSE2 on x86-64).
template <typename T>
struct Vec {
    static constexpr int width = 16 / sizeof(T);
    T v[width];
    static VISION3D_INLINE Vec zero() { return splat(0); }
    static VISION3D_INLINE Vec load(const T *p) {
        Vec r;
        for (int i = 0; i < width; ++i) r.v[i] = p[i];
        return r;
    }
    static VISION3D_INLINE Vec splat(T x) {
        Vec r;
        for (int i = 0; i < width; ++i) r.v[i] = x;
        return r;
    }
    VISION3D_INLINE void store(T *p) const {
        for (int i = 0; i < width; ++i) p[i] = v[i];
    }
    VISION3D_INLINE void fma(Vec a, Vec b) {
        for (int i = 0; i < width; ++i) v[i] += a.v[i] * b.v[i];
    }
    VISION3D_INLINE Vec add(Vec o) const {
        Vec r;
        for (int i = 0; i < width; ++i) r.v[i] = v[i] + o.v[i];
        return r;
    }
    VISION3D_INLINE Vec max(Vec o) const {
        Vec r;
        for (int i = 0; i < width; ++i) r.v[i] = v[i] > o.v[i] ? v[i] : o.v[i];
        return r;
    }
};

#endif

}  // namespace VISION3D_ISA
}  // namespace vision3d
