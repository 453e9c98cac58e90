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

constexpr int kLanes = 8;
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
constexpr GroupedLoops kLoops{kLanes, convolve<kGroup, kStep>, gradient<kGroup, kStep>};

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,fma")

// All nine taps of pixels that are seen one by one: what is spread of a row of them serves three taps.
namespace avx512 {

constexpr int kLanes = 16;
constexpr int kSide = 3;

// For each lane where channel i of its group lies.
template <int kGroup>
inline __m512i places(int i) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_add_epi32(_mm512_and_si512(lane, _mm512_set1_epi32(-kGroup)), _mm512_set1_epi32(i));
}

inline __m512 spread(const float* pixel, __m512i from) { return _mm512_maskz_permutexvar_ps(0xffff, from, _mm512_loadu_ps(pixel)); }

template <int kGroup, int kPixels>
inline void convolve_pixels(const float* x, std::int64_t x_row, const float* weight, __m512 bias, __m512 slope, float* y, std::int64_t y_pixel) {
  __m512 sum[kPixels];
#pragma GCC unroll 12
  for (int p = 0; p < kPixels; ++p) sum[p] = bias;
  for (int row = 0; row < kSide; ++row, x += x_row, weight += kSide * kGroup * kLanes) {
#pragma GCC unroll 8
    for (int i = 0; i < kGroup; ++i) {
      const __m512i from = places<kGroup>(i);
      __m512 pixel[kPixels + kSide - 1];
#pragma GCC unroll 14
      for (int p = 0; p < kPixels + kSide - 1; ++p) pixel[p] = spread(x + p * kLanes, from);
#pragma GCC unroll 3
      for (int column = 0; column < kSide; ++column) {
        const __m512 w = _mm512_loadu_ps(weight + (column * kGroup + i) * kLanes);
#pragma GCC unroll 12
        for (int p = 0; p < kPixels; ++p) sum[p] = _mm512_fmadd_ps(pixel[p + column], w, sum[p]);
      }
    }
  }
#pragma GCC unroll 12
  for (int p = 0; p < kPixels; ++p) {
    _mm512_storeu_ps(y + p * y_pixel, _mm512_mask_mul_ps(sum[p], _mm512_movepi32_mask(_mm512_castps_si512(sum[p])), sum[p], slope));
  }
}

// `pixels` of them, 1 to kPixels.
template <int kGroup, int kPixels>
inline void convolve_some(std::int64_t pixels, const float* x, std::int64_t x_row, const float* weight, __m512 bias, __m512 slope, float* y,
                          std::int64_t y_pixel) {
  if constexpr (kPixels > 1) {
    if (pixels < kPixels) return convolve_some<kGroup, kPixels - 1>(pixels, x, x_row, weight, bias, slope, y, y_pixel);
  }
  convolve_pixels<kGroup, kPixels>(x, x_row, weight, bias, slope, y, y_pixel);
}

template <int kGroup>
void convolve(const float* x, const Taps& taps, const float* weight, const float* bias, float slope, std::int64_t rows, std::int64_t width, float* y,
              std::int64_t y_row, std::int64_t y_pixel) {
  const __m512 b = bias == nullptr ? _mm512_setzero_ps() : _mm512_loadu_ps(bias), s = _mm512_set1_ps(slope);
  const std::int64_t pieces = (width + kWidest - 1) / kWidest, piece = (width + pieces - 1) / pieces;
  for (std::int64_t r = 0; r < rows; ++r, x += taps.row, y += y_row) {
    for (std::int64_t first = 0; first < width; first += piece) {
      const std::int64_t pixels = first + piece <= width ? piece : width - first;
      convolve_some<kGroup, kWidest>(pixels, x + first * kLanes, taps.row, weight, b, s, y + first * y_pixel, y_pixel);
    }
  }
}

// Of a row of the kernel and kSome channels of each group from one on.
template <int kGroup>
inline void add_gradient(const float* x, std::int64_t x_row, int channel, const float* dy, std::int64_t rows, std::int64_t width, float* dw) {
  constexpr int kSome = 4;
  __m512i from[kSome];
  __m512 sum[kSide][kSome];
#pragma GCC unroll 4
  for (int i = 0; i < kSome; ++i) {
    from[i] = places<kGroup>(channel + i);
#pragma GCC unroll 3
    for (int column = 0; column < kSide; ++column) sum[column][i] = _mm512_setzero_ps();
  }
  for (std::int64_t r = 0; r < rows; ++r, x += x_row) {
    __m512 pixels[kSide][kSome];
#pragma GCC unroll 4
    for (int i = 0; i < kSome; ++i) {
      pixels[1][i] = spread(x, from[i]);
      pixels[2][i] = spread(x + kLanes, from[i]);
    }
    const float* next = x + 2 * kLanes;
    for (std::int64_t p = 0; p < width; ++p, next += kLanes, dy += kLanes) {
      const __m512 factor = _mm512_loadu_ps(dy);
#pragma GCC unroll 4
      for (int i = 0; i < kSome; ++i) {
        pixels[0][i] = pixels[1][i];
        pixels[1][i] = pixels[2][i];
        pixels[2][i] = spread(next, from[i]);
#pragma GCC unroll 3
        for (int column = 0; column < kSide; ++column) sum[column][i] = _mm512_fmadd_ps(pixels[column][i], factor, sum[column][i]);
      }
    }
  }
  for (int column = 0; column < kSide; ++column) {
    for (int i = 0; i < kSome; ++i) {
      float* to = dw + (column * kGroup + channel + i) * kLanes;
      _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), sum[column][i]));
    }
  }
}

template <int kGroup>
void gradient(const float* x, const Taps& taps, const float* dy, std::int64_t rows, std::int64_t width, float* dw) {
  for (int row = 0; row < kSide; ++row, x += taps.row, dw += kSide * kGroup * kLanes) {
    for (int channel = 0; channel < kGroup; channel += 4) add_gradient<kGroup>(x, taps.row, channel, dy, rows, width, dw);
  }
}

template <int kGroup>
constexpr GroupedLoops kLoops{kLanes, convolve<kGroup>, gradient<kGroup>};

}  // namespace avx512

#pragma GCC pop_options

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

const GroupedLoops* whole_kernel_loops(std::int64_t group, std::int64_t stride) {
#ifdef CELLCAM_WIDE_LOOPS
  if (instructions() == Instructions::avx512 && stride == 1) {
    if (group == 4) return &avx512::kLoops<4>;
    if (group == 8) return &avx512::kLoops<8>;
  }
#endif
  return grouped_loops(group, stride);
}

}  // namespace cellcam::model::fused
