#pragma once
// What loops over tiles of matrix products have in common, with AVX2. To be included where that is on.
#include <immintrin.h>

#include "model/fused/product_loops.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,popcnt")

namespace cellcam::model::fused {

namespace {

constexpr int kLanes = 8;

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
