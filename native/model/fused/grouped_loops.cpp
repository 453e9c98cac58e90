#include "model/fused/grouped_loops.h"

#include <ATen/Version.h>

#include <string>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CELLCAM_GROUPED_LOOPS
#include <immintrin.h>
#endif

namespace cellcam::model::fused {

#ifdef CELLCAM_GROUPED_LOOPS
#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace {

constexpr int kWidest = 12;  // pixels whose sums stay in registers
constexpr std::int64_t kPlace = 4 * kLanes;

// Channel i of each of the two groups in all lanes of that group.
template <int i>
inline __m256 spread(const float* pixel) {
  return _mm256_permute_ps(_mm256_loadu_ps(pixel), i * 0x55);
}

template <int kPixels, int i = 0>
inline void add_channels(const float* x, const float* weight, __m256 (&sum)[kPixels]) {
  const __m256 w = _mm256_loadu_ps(weight + i * kLanes);
#pragma GCC unroll 12
  for (int p = 0; p < kPixels; ++p) sum[p] = _mm256_fmadd_ps(spread<i>(x + p * kLanes), w, sum[p]);
  if constexpr (i < 3) add_channels<kPixels, i + 1>(x, weight, sum);
}

template <int kPixels>
inline void convolve_pixels(const float* x, std::int64_t x_row, const float* weight, __m256 bias, __m256 slope, float* y,
                            std::int64_t y_pixel) {
  __m256 sum[kPixels];
#pragma GCC unroll 12
  for (int p = 0; p < kPixels; ++p) sum[p] = bias;
  for (int row = 0; row < 3; ++row) {
    for (int column = 0; column < 3; ++column) {
      add_channels<kPixels>(x + row * x_row + column * kLanes, weight + (3 * row + column) * kPlace, sum);
    }
  }
#pragma GCC unroll 12
  for (int p = 0; p < kPixels; ++p) _mm256_storeu_ps(y + p * y_pixel, _mm256_blendv_ps(sum[p], _mm256_mul_ps(sum[p], slope), sum[p]));
}

// `pixels` of them, 1 to kPixels.
template <int kPixels>
inline void convolve_some(std::int64_t pixels, const float* x, std::int64_t x_row, const float* weight, __m256 bias, __m256 slope, float* y,
                          std::int64_t y_pixel) {
  if constexpr (kPixels > 1) {
    if (pixels < kPixels) return convolve_some<kPixels - 1>(pixels, x, x_row, weight, bias, slope, y, y_pixel);
  }
  convolve_pixels<kPixels>(x, x_row, weight, bias, slope, y, y_pixel);
}

void convolve(const float* x, std::int64_t x_row, const float* weight, const float* bias, float slope, std::int64_t rows, std::int64_t width,
              float* y, std::int64_t y_row, std::int64_t y_pixel) {
  const __m256 b = bias == nullptr ? _mm256_setzero_ps() : _mm256_loadu_ps(bias), s = _mm256_set1_ps(slope);
  const std::int64_t pieces = (width + kWidest - 1) / kWidest, piece = (width + pieces - 1) / pieces;
  for (std::int64_t r = 0; r < rows; ++r, x += x_row, y += y_row) {
    for (std::int64_t first = 0; first < width; first += piece) {
      const std::int64_t pixels = first + piece <= width ? piece : width - first;
      convolve_some<kWidest>(pixels, x + first * kLanes, x_row, weight, b, s, y + first * y_pixel, y_pixel);
    }
  }
}

void gradient(const float* x, std::int64_t x_row, const float* dy, std::int64_t rows, std::int64_t width, float* dw) {
  for (int place_row = 0; place_row < 3; ++place_row, x += x_row, dw += 3 * kPlace) {
    __m256 sum[12] = {};  // column, channel
    for (std::int64_t r = 0; r < rows; ++r) {
      const float *pixel = x + r * x_row, *g = dy + r * width * kLanes;
      for (std::int64_t p = 0; p < width; ++p, pixel += kLanes, g += kLanes) {
        const __m256 factor = _mm256_loadu_ps(g);
#pragma GCC unroll 3
        for (int column = 0; column < 3; ++column) {
          const float* at = pixel + column * kLanes;
          __m256* of = sum + 4 * column;
          of[0] = _mm256_fmadd_ps(spread<0>(at), factor, of[0]);
          of[1] = _mm256_fmadd_ps(spread<1>(at), factor, of[1]);
          of[2] = _mm256_fmadd_ps(spread<2>(at), factor, of[2]);
          of[3] = _mm256_fmadd_ps(spread<3>(at), factor, of[3]);
        }
      }
    }
    for (int i = 0; i < 12; ++i) _mm256_storeu_ps(dw + i * kLanes, _mm256_add_ps(_mm256_loadu_ps(dw + i * kLanes), sum[i]));
  }
}

constexpr GroupedLoops kLoops{convolve, gradient};

}  // namespace

#pragma GCC pop_options
#endif

const GroupedLoops* grouped_loops() {
#ifdef CELLCAM_GROUPED_LOOPS
  static const std::string instructions = at::get_cpu_capability();  // of this CPU, or what ATEN_CPU_CAPABILITY asks for
  if (instructions == "AVX2" || instructions == "AVX512") return &kLoops;
#endif
  return nullptr;
}

}  // namespace cellcam::model::fused
