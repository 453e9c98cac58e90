#include "model/fused/stem_loops.h"

#include "model/fused/panel_loops.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CELLCAM_STEM_LOOPS
#include <immintrin.h>
#endif

namespace cellcam::model::fused {

#ifdef CELLCAM_STEM_LOOPS
#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace {

constexpr int kLanes = 8;
constexpr std::int64_t kTogether = 6;  // pixels, or weights, whose sums are in registers

inline __m256 act(__m256 sum, __m256 bias, __m256 slope) {
  const __m256 v = _mm256_add_ps(sum, bias);
  return _mm256_blendv_ps(v, _mm256_mul_ps(v, slope), v);  // by the sign
}

template <int n>
inline void convolve_pixels(const float* x, const Windows& w, const float* weight, const float* bias, Slope slope, float* y, std::int64_t step) {
  __m256 low[n], high[n];
#pragma GCC unroll 6
  for (int i = 0; i < n; ++i) low[i] = high[i] = _mm256_setzero_ps();
  for (std::int64_t r = 0; r < w.rows; ++r, x += w.row) {
#pragma GCC unroll 4
    for (std::int64_t k = 0; k < w.length; ++k, weight += kPanel) {
      const __m256 w0 = _mm256_loadu_ps(weight), w1 = _mm256_loadu_ps(weight + kLanes);
#pragma GCC unroll 6
      for (int i = 0; i < n; ++i) {
        const __m256 value = _mm256_broadcast_ss(x + i * w.apart + k);
        low[i] = _mm256_fmadd_ps(value, w0, low[i]);
        high[i] = _mm256_fmadd_ps(value, w1, high[i]);
      }
    }
  }
  if (bias != nullptr) {
    const __m256 b0 = _mm256_loadu_ps(bias), b1 = _mm256_loadu_ps(bias + kLanes), factor = _mm256_set1_ps(slope);
#pragma GCC unroll 6
    for (int i = 0; i < n; ++i) {
      low[i] = act(low[i], b0, factor);
      high[i] = act(high[i], b1, factor);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < n; ++i) {
    _mm256_storeu_ps(y + i * step, low[i]);
    _mm256_storeu_ps(y + i * step + kLanes, high[i]);
  }
}

template <int n>
inline void convolve_some(std::int64_t pixels, const float* x, const Windows& w, const float* weight, const float* bias, Slope slope, float* y,
                          std::int64_t step) {
  if constexpr (n > 1) {
    if (pixels < n) return convolve_some<n - 1>(pixels, x, w, weight, bias, slope, y, step);
  }
  convolve_pixels<n>(x, w, weight, bias, slope, y, step);
}

// Calls f(first, next) for stretches of at most kTogether, as even as they can be: a short one has too few sums to keep the units busy.
template <typename F>
inline void evenly(std::int64_t count, const F& f) {
  const std::int64_t pieces = (count + kTogether - 1) / kTogether;
  for (std::int64_t i = 0; i < pieces; ++i) f(count * i / pieces, count * (i + 1) / pieces);
}

void convolve(const Windows& w, const float* weight, const float* bias, Slope slope, std::int64_t pixels, float* y, std::int64_t step) {
  evenly(pixels, [&](std::int64_t first, std::int64_t next) {
    convolve_some<kTogether>(next - first, w.first + first * w.apart, w, weight, bias, slope, y + first * step, step);
  });
}

template <int n>
inline void add_products(const float* x, std::int64_t apart, const float* dy, std::int64_t pixels, float* sums) {
  __m256 low[n], high[n];
#pragma GCC unroll 6
  for (int i = 0; i < n; ++i) low[i] = high[i] = _mm256_setzero_ps();
#pragma GCC unroll 2
  for (std::int64_t p = 0; p < pixels; ++p, x += apart, dy += kPanel) {
    const __m256 d0 = _mm256_loadu_ps(dy), d1 = _mm256_loadu_ps(dy + kLanes);
#pragma GCC unroll 6
    for (int i = 0; i < n; ++i) {
      const __m256 value = _mm256_broadcast_ss(x + i);
      low[i] = _mm256_fmadd_ps(value, d0, low[i]);
      high[i] = _mm256_fmadd_ps(value, d1, high[i]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < n; ++i) {
    _mm256_storeu_ps(sums + i * kPanel, _mm256_add_ps(_mm256_loadu_ps(sums + i * kPanel), low[i]));
    _mm256_storeu_ps(sums + i * kPanel + kLanes, _mm256_add_ps(_mm256_loadu_ps(sums + i * kPanel + kLanes), high[i]));
  }
}

template <int n>
inline void add_some(std::int64_t weights, const float* x, std::int64_t apart, const float* dy, std::int64_t pixels, float* sums) {
  if constexpr (n > 1) {
    if (weights < n) return add_some<n - 1>(weights, x, apart, dy, pixels, sums);
  }
  add_products<n>(x, apart, dy, pixels, sums);
}

void gradient(const Windows& w, const float* dy, std::int64_t pixels, float* sums) {
  for (std::int64_t r = 0; r < w.rows; ++r, sums += w.length * kPanel) {
    evenly(w.length, [&](std::int64_t first, std::int64_t next) {
      add_some<kTogether>(next - first, w.first + r * w.row + first, w.apart, dy, pixels, sums + first * kPanel);
    });
  }
}

constexpr StemLoops kLoops{convolve, gradient};

}  // namespace

#pragma GCC pop_options
#endif

const StemLoops* stem_loops() {
#ifdef CELLCAM_STEM_LOOPS
  if (panel_loops() != nullptr) return &kLoops;
#endif
  return nullptr;
}

}  // namespace cellcam::model::fused
