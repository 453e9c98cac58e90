#include "model/fused/grouped_loops.h"

#include "model/fused/cpu.h"

#ifdef CELLCAM_WIDE_LOOPS
#include <immintrin.h>
#endif

namespace cellcam::model::fused {

#ifdef CELLCAM_WIDE_LOOPS
#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace {

constexpr int kWidest = 12;  // pixels whose sums stay in registers

// Channel i of each of the two groups, or of the only one, in all lanes of that group.
template <int kGroup, int i>
inline __m256 spread(const float* pixel) {
  if constexpr (kGroup == kLanes) return _mm256_broadcast_ss(pixel + i);
  else return _mm256_permute_ps(_mm256_loadu_ps(pixel), i * 0x55);
}

// Pixels of x are kStep vectors apart.
template <int kGroup, int kStep, int kPixels, int i = 0>
inline void add_channels(const float* x, const float* weight, __m256 (&sum)[kPixels]) {
  const __m256 w = _mm256_loadu_ps(weight + i * kLanes);
#pragma GCC unroll 12
  for (int p = 0; p < kPixels; ++p) sum[p] = _mm256_fmadd_ps(spread<kGroup, i>(x + p * kStep * kLanes), w, sum[p]);
  if constexpr (i + 1 < kGroup) add_channels<kGroup, kStep, kPixels, i + 1>(x, weight, sum);
}

template <int kGroup, int kStep, int kPixels>
inline void convolve_pixels(const float* x, const Taps& taps, const float* weight, __m256 bias, __m256 slope, float* y, std::int64_t y_pixel) {
  __m256 sum[kPixels];
#pragma GCC unroll 12
  for (int p = 0; p < kPixels; ++p) sum[p] = bias;
  for (std::int64_t block = 0; block < taps.blocks; ++block, x += taps.block) {
    for (std::int64_t t = 0; t < taps.count; ++t, weight += kGroup * kLanes) add_channels<kGroup, kStep, kPixels>(x + taps.offset[t], weight, sum);
  }
#pragma GCC unroll 12
  for (int p = 0; p < kPixels; ++p) _mm256_storeu_ps(y + p * y_pixel, _mm256_blendv_ps(sum[p], _mm256_mul_ps(sum[p], slope), sum[p]));
}

// `pixels` of them, 1 to kPixels.
template <int kGroup, int kStep, int kPixels>
inline void convolve_some(std::int64_t pixels, const float* x, const Taps& taps, const float* weight, __m256 bias, __m256 slope, float* y,
                          std::int64_t y_pixel) {
  if constexpr (kPixels > 1) {
    if (pixels < kPixels) return convolve_some<kGroup, kStep, kPixels - 1>(pixels, x, taps, weight, bias, slope, y, y_pixel);
  }
  convolve_pixels<kGroup, kStep, kPixels>(x, taps, weight, bias, slope, y, y_pixel);
}

template <int kGroup, int kStep>
void convolve(const float* x, const Taps& taps, const float* weight, const float* bias, float slope, std::int64_t rows, std::int64_t width, float* y,
              std::int64_t y_row, std::int64_t y_pixel) {
  const __m256 b = bias == nullptr ? _mm256_setzero_ps() : _mm256_loadu_ps(bias), s = _mm256_set1_ps(slope);
  const std::int64_t pieces = (width + kWidest - 1) / kWidest, piece = (width + pieces - 1) / pieces;
  for (std::int64_t r = 0; r < rows; ++r, x += kStep * taps.row, y += y_row) {
    for (std::int64_t first = 0; first < width; first += piece) {
      const std::int64_t pixels = first + piece <= width ? piece : width - first;
      convolve_some<kGroup, kStep, kWidest>(pixels, x + first * kStep * kLanes, taps, weight, b, s, y + first * y_pixel, y_pixel);
    }
  }
}

template <int kGroup, int i = 0>
inline void add_products(const float* pixel, __m256 factor, __m256* sum) {
  sum[i] = _mm256_fmadd_ps(spread<kGroup, i>(pixel), factor, sum[i]);
  if constexpr (i + 1 < kGroup) add_products<kGroup, i + 1>(pixel, factor, sum);
}

template <int kGroup, int kStep>
void gradient(const float* x, const Taps& taps, const float* dy, std::int64_t rows, std::int64_t width, float* dw) {
  constexpr int kTaps = kGroup == 4 ? 3 : 1;  // of the kernel at a time, so that sums stay in registers
  for (std::int64_t block = 0; block < taps.blocks; ++block, x += taps.block) {
    for (std::int64_t t = 0; t < taps.count; t += kTaps, dw += kTaps * kGroup * kLanes) {
      __m256 sum[kTaps * kGroup] = {};  // tap, channel
      for (std::int64_t r = 0; r < rows; ++r) {
        const float *row = x + r * kStep * taps.row, *g = dy + r * width * kLanes;
        for (std::int64_t p = 0; p < width; ++p, row += kStep * kLanes, g += kLanes) {
          const __m256 factor = _mm256_loadu_ps(g);
#pragma GCC unroll 3
          for (int i = 0; i < kTaps; ++i) add_products<kGroup>(row + taps.offset[t + i], factor, sum + kGroup * i);
        }
      }
      for (int i = 0; i < kTaps * kGroup; ++i) _mm256_storeu_ps(dw + i * kLanes, _mm256_add_ps(_mm256_loadu_ps(dw + i * kLanes), sum[i]));
    }
  }
}

template <int kGroup, int kStep>
constexpr GroupedLoops kLoops{convolve<kGroup, kStep>, gradient<kGroup, kStep>};

}  // namespace

#pragma GCC pop_options
#endif

const GroupedLoops* grouped_loops(std::int64_t group, std::int64_t stride) {
#ifdef CELLCAM_WIDE_LOOPS
  if (instructions() == Instructions::plain || stride > 2) return nullptr;
  if (group == 4) return stride == 1 ? &kLoops<4, 1> : &kLoops<4, 2>;
  if (group % kLanes == 0) return stride == 1 ? &kLoops<8, 1> : &kLoops<8, 2>;
#endif
  return nullptr;
}

}  // namespace cellcam::model::fused
