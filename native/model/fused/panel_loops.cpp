#include "model/fused/panel_loops.h"

#include <ATen/Version.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CELLCAM_PANEL_LOOPS
#include <immintrin.h>
#endif

namespace cellcam::model::fused {

#ifdef CELLCAM_PANEL_LOOPS
#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace {

constexpr int kLanes = 8;
constexpr int kRows = 6;  // of sums in registers

template <int n>
inline void multiply_rows(const float* x, std::int64_t panel, std::int64_t panels, const float* y, float* c) {
  __m256 low[n], high[n];
#pragma GCC unroll 6
  for (int r = 0; r < n; ++r) low[r] = high[r] = _mm256_setzero_ps();
  for (std::int64_t p = 0; p < panels; ++p, x += panel) {
#pragma GCC unroll 4
    for (int k = 0; k < kPanel; ++k, y += kPanel) {
      const __m256 y0 = _mm256_loadu_ps(y), y1 = _mm256_loadu_ps(y + kLanes);
#pragma GCC unroll 6
      for (int r = 0; r < n; ++r) {
        const __m256 factor = _mm256_broadcast_ss(x + r * kPanel + k);
        low[r] = _mm256_fmadd_ps(factor, y0, low[r]);
        high[r] = _mm256_fmadd_ps(factor, y1, high[r]);
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < n; ++r) {
    _mm256_storeu_ps(c + r * kPanel, low[r]);
    _mm256_storeu_ps(c + r * kPanel + kLanes, high[r]);
  }
}

// `rows` of them, 1 to n.
template <int n>
inline void multiply_some(std::int64_t rows, const float* x, std::int64_t panel, std::int64_t panels, const float* y, float* c) {
  if constexpr (n > 1) {
    if (rows < n) return multiply_some<n - 1>(rows, x, panel, panels, y, c);
  }
  multiply_rows<n>(x, panel, panels, y, c);
}

void multiply(const float* x, std::int64_t rows, std::int64_t panels, const float* y, float* c) {
  const std::int64_t pieces = (rows + kRows - 1) / kRows;
  for (std::int64_t piece = 0; piece < pieces; ++piece) {  // as even as they can be: a short one has too few sums to keep the units busy
    const std::int64_t first = rows * piece / pieces, next = rows * (piece + 1) / pieces;
    multiply_some<kRows>(next - first, x + first * kPanel, rows * kPanel, panels, y, c + first * kPanel);
  }
}

template <int first, int n>
inline void multiply_columns(const float* x, const float* y, std::int64_t rows, bool adds, float* c) {
  __m256 low[n], high[n];
#pragma GCC unroll 6
  for (int r = 0; r < n; ++r) {
    low[r] = adds ? _mm256_loadu_ps(c + (first + r) * kPanel) : _mm256_setzero_ps();
    high[r] = adds ? _mm256_loadu_ps(c + (first + r) * kPanel + kLanes) : _mm256_setzero_ps();
  }
#pragma GCC unroll 2
  for (std::int64_t i = 0; i < rows; ++i, x += kPanel, y += kPanel) {
    const __m256 y0 = _mm256_loadu_ps(y), y1 = _mm256_loadu_ps(y + kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < n; ++r) {
      const __m256 factor = _mm256_broadcast_ss(x + first + r);
      low[r] = _mm256_fmadd_ps(factor, y0, low[r]);
      high[r] = _mm256_fmadd_ps(factor, y1, high[r]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < n; ++r) {
    _mm256_storeu_ps(c + (first + r) * kPanel, low[r]);
    _mm256_storeu_ps(c + (first + r) * kPanel + kLanes, high[r]);
  }
}

void multiply_transposed(const float* x, const float* y, std::int64_t rows, bool adds, float* c) {
  multiply_columns<0, 6>(x, y, rows, adds, c);
  multiply_columns<6, 5>(x, y, rows, adds, c);
  multiply_columns<11, 5>(x, y, rows, adds, c);
}

constexpr PanelLoops kLoops{multiply, multiply_transposed};

}  // namespace

#pragma GCC pop_options
#endif

const PanelLoops* panel_loops() {
#ifdef CELLCAM_PANEL_LOOPS
  static const bool has = at::get_cpu_capability() == "AVX2";  // of this CPU, or what ATEN_CPU_CAPABILITY asks for
  if (has) return &kLoops;
#endif
  return nullptr;
}

}  // namespace cellcam::model::fused
