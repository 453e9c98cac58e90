#pragma once
// What loops over tiles of matrix products have in common, with AVX2. To be included where that is on.
#include <immintrin.h>

#include "model/fused/product_loops.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,popcnt")

namespace cellcam::model::fused {

namespace {

constexpr int kLanes = 8;

inline __m256 act(__m256 sum, __m256 bias, __m256 slope) {
  const __m256 v = _mm256_add_ps(sum, bias);
  return _mm256_blendv_ps(v, _mm256_mul_ps(v, slope), v);  // by the sign
}

// Sums of a tile to where they go.
template <int rows, int vectors>
inline void store(__m256 (&sums)[rows][vectors], const SumTile& to) {
  if (to.added) {
#pragma GCC unroll 6
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 12
      for (int v = 0; v < vectors; ++v) sums[r][v] = _mm256_add_ps(sums[r][v], _mm256_loadu_ps(to.sums + r * to.step + v * kLanes));
    }
  }
  if (to.bias != nullptr) {
    const __m256 slope = _mm256_set1_ps(to.slope);
#pragma GCC unroll 12
    for (int v = 0; v < vectors; ++v) {
      const __m256 bias = _mm256_loadu_ps(to.bias + v * kLanes);
#pragma GCC unroll 6
      for (int r = 0; r < rows; ++r) sums[r][v] = act(sums[r][v], bias, slope);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 12
    for (int v = 0; v < vectors; ++v) _mm256_storeu_ps(to.sums + r * to.step + v * kLanes, sums[r][v]);
  }
}

inline void ask(const float* x) { _mm_prefetch(reinterpret_cast<const char*>(x), _MM_HINT_T0); }

inline __m256i first_lanes(std::int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

constexpr std::int64_t kAhead = 16;  // rows that are asked for before they are read

inline void transpose(__m256 (&v)[kLanes]) {
  __m256 pairs[kLanes], fours[kLanes];
#pragma GCC unroll 4
  for (int i = 0; i < kLanes; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < kLanes; i += 4) {
    fours[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    fours[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    fours[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    fours[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
  }
}

}  // namespace

}  // namespace cellcam::model::fused

#pragma GCC pop_options
