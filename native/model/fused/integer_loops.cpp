#include "model/fused/integer_loops.h"

#include <algorithm>
#include <limits>

#include "model/fused/cpu.h"
#include "model/fused/panel_loops.h"

#ifdef CELLCAM_WIDE_LOOPS
#include "model/fused/tile_loops.h"
#endif

namespace cellcam::model::fused {

#ifdef CELLCAM_WIDE_LOOPS
#pragma GCC push_options
#pragma GCC target("avx2,fma,popcnt")

namespace {

constexpr std::int64_t kDepth = 256;
constexpr float kLongest = 46000, kLargest = 32766, kRootOfDepth = 16;

constexpr std::int64_t pairs(std::int64_t depth) { return (depth + 1) / 2; }

// What tells the scales of eight rows or columns.
struct Sizes {
  __m256 squares, largest;

  Sizes() : squares(_mm256_setzero_ps()), largest(_mm256_setzero_ps()) {}
  void add(__m256 x) {
    squares = _mm256_fmadd_ps(x, x, squares);
    largest = _mm256_max_ps(largest, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x));
  }
};

inline __m256 all(float x) { return _mm256_set1_ps(x); }

// Factors to integers, and back.
struct Scales {
  __m256 up, down;

  explicit Scales(const Sizes& s) {
    constexpr float kLeast = 1e-30f, kMost = 1e30f;  // of a sum of squares that tells the norm
    const __m256 tells = _mm256_and_ps(_mm256_cmp_ps(s.squares, all(kLeast), _CMP_GT_OQ), _mm256_cmp_ps(s.squares, all(kMost), _CMP_LT_OQ));
    const __m256 norm = _mm256_blendv_ps(_mm256_mul_ps(s.largest, all(kRootOfDepth)), _mm256_sqrt_ps(s.squares), tells);
    up = _mm256_min_ps(_mm256_div_ps(all(kLongest), norm), _mm256_div_ps(all(kLargest), s.largest));
    up = _mm256_min_ps(up, all(1e35f));  // all zeros, or next to it
    const __m256 infinite = _mm256_cmp_ps(s.largest, all(std::numeric_limits<float>::infinity()), _CMP_EQ_OQ);
    const __m256 unfit = _mm256_or_ps(infinite, _mm256_cmp_ps(s.squares, s.squares, _CMP_UNORD_Q));
    down = _mm256_blendv_ps(_mm256_div_ps(all(1), up), all(std::numeric_limits<float>::quiet_NaN()), unfit);
  }
};

inline __m256i rounded(__m256 x, __m256 up) { return _mm256_cvtps_epi32(_mm256_mul_ps(x, up)); }

// The sizes of eight rows, of each of which eight are told in vectors of its own.
inline Sizes across(__m256 (&squares)[kLanes], __m256 (&largest)[kLanes]) {
  transpose(squares);
  transpose(largest);
  Sizes sum;
#pragma GCC unroll 8
  for (int i = 0; i < kLanes; ++i) {
    sum.squares = _mm256_add_ps(sum.squares, squares[i]);
    sum.largest = _mm256_max_ps(sum.largest, largest[i]);
  }
  return sum;
}

// n of kLanes rows to columns of `to`, `apart` pairs each, zeros for those beyond `width`; their scales to `scales`.
template <int n>
inline void transpose_rows(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* to, std::int64_t apart, float* scales) {
  const int rows = static_cast<int>(std::min<std::int64_t>(n, width));
  __m256 squares[kLanes], largest[kLanes];
#pragma GCC unroll 8
  for (int r = 0; r < kLanes; ++r) squares[r] = largest[r] = _mm256_setzero_ps();
  for (int r = 0; r < rows; ++r) {
    const float* row = x + r * step;
    Sizes even, odd;
    std::int64_t k = 0;
    for (; k + 2 * kLanes <= depth; k += 2 * kLanes) {
      ask(row + n * step + k);
      even.add(_mm256_loadu_ps(row + k));
      odd.add(_mm256_loadu_ps(row + k + kLanes));
    }
    for (; k < depth; k += kLanes) even.add(_mm256_maskload_ps(row + k, first_lanes(depth - k)));
    squares[r] = _mm256_add_ps(even.squares, odd.squares);
    largest[r] = _mm256_max_ps(even.largest, odd.largest);
  }
  const Scales of(across(squares, largest));
  _mm256_storeu_ps(scales, of.down);
  alignas(32) float up[kLanes];
  _mm256_store_ps(up, of.up);

  for (std::int64_t k = 0; k < depth; k += 2 * kLanes, to += kLanes * apart) {
    const std::int64_t left = depth - k;
    const __m256i low = first_lanes(left), high = first_lanes(left - kLanes);
    __m256 v[kLanes];
#pragma GCC unroll 8
    for (int r = 0; r < kLanes; ++r) {
      v[r] = _mm256_setzero_ps();
      if (r >= rows) continue;
      const float* row = x + r * step + k;
      const __m256 factor = _mm256_broadcast_ss(up + r);
      const __m256i first = rounded(left >= kLanes ? _mm256_loadu_ps(row) : _mm256_maskload_ps(row, low), factor);
      const __m256i second = rounded(left >= 2 * kLanes ? _mm256_loadu_ps(row + kLanes) : _mm256_maskload_ps(row + kLanes, high), factor);
      v[r] = _mm256_castsi256_ps(_mm256_permute4x64_epi64(_mm256_packs_epi32(first, second), 0xd8));
    }
    transpose(v);
    if (left > 2 * kLanes - 2) {
#pragma GCC unroll 8
      for (int i = 0; i < kLanes; ++i) _mm256_storeu_ps(to + i * apart, v[i]);
    } else {
      for (int i = 0; i < pairs(left); ++i) _mm256_storeu_ps(to + i * apart, v[i]);
    }
  }
}

// Vectors of a tile's rows or columns, and the floats of their scales before a piece.
constexpr std::int64_t vectors_of(std::int64_t each) { return (each + kLanes - 1) / kLanes; }
constexpr std::int64_t head(std::int64_t each) { return vectors_of(each) * kLanes; }

template <std::int64_t rows>
void transpose_pieces(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* pieces, std::int64_t apart) {
  constexpr int kSome = std::min<std::int64_t>(rows, kLanes);
  for (; width > 0; width -= rows, x += rows * step, pieces += apart) {
    for (std::int64_t r = 0; r < rows; r += kSome) {
      transpose_rows<kSome>(x + r * step, step, depth, width - r, pieces + head(rows) + r, rows, pieces + r);
    }
  }
}

void transpose_panels(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* panels, std::int64_t apart) {
  for (; width > 0; width -= kPanel, x += kPanel * step, panels += apart) {
    transpose_rows<kLanes>(x, step, depth, kLanes, panels + kPanel, kPanel, panels);
    transpose_rows<kLanes>(x + kLanes * step, step, depth, kLanes, panels + kPanel + kLanes, kPanel, panels + kLanes);
  }
}

// Up to so many `vectors` of columns to tiles of `each` columns, behind their scales.
template <std::int64_t each, std::int64_t vectors>
inline void copy_columns(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* to, std::int64_t apart) {
  __m256i read[vectors];
  Sizes sizes[vectors];
#pragma GCC unroll 6
  for (int v = 0; v < vectors; ++v) read[v] = first_lanes(width - v * kLanes);
  const float* row = x;
  for (std::int64_t k = 0; k < depth; ++k, row += step) {
#pragma GCC unroll 3
    for (int i = 0; i < vectors * kLanes; i += 16) ask(row + kAhead * step + i);
#pragma GCC unroll 6
    for (int v = 0; v < vectors; ++v) {
      sizes[v].add(width >= vectors * kLanes ? _mm256_loadu_ps(row + v * kLanes) : _mm256_maskload_ps(row + v * kLanes, read[v]));
    }
  }
  alignas(32) float up[(vectors + 1) * kLanes], down[(vectors + 1) * kLanes];
#pragma GCC unroll 6
  for (int v = 0; v < vectors; ++v) {
    const Scales of(sizes[v]);
    _mm256_store_ps(up + v * kLanes, of.up);
    _mm256_store_ps(down + v * kLanes, of.down);
  }
  constexpr std::int64_t kEach = vectors_of(each);
  const std::int64_t tiles = (width + each - 1) / each;
  __m256i all[kEach], some[kEach];
  for (int v = 0; v < kEach; ++v) {
    all[v] = first_lanes(each - v * kLanes);
    some[v] = first_lanes(std::min(each, width - (tiles - 1) * each) - v * kLanes);
  }
  for (std::int64_t t = 0; t < tiles; ++t) {
    for (std::int64_t v = 0; v < kEach * kLanes; v += kLanes) _mm256_storeu_ps(to + t * apart + v, _mm256_loadu_ps(down + t * each + v));
  }
  to += head(each);
  for (std::int64_t k = 0; k < depth; k += 2, x += 2 * step, to += each) {
    const float* second = k + 1 < depth ? x + step : nullptr;
    for (std::int64_t t = 0; t < tiles; ++t) {
      const __m256i* lanes = t + 1 < tiles ? all : some;
#pragma GCC unroll 3
      for (int v = 0; v < kEach; ++v) {
        const std::int64_t i = t * each + v * kLanes;
        const __m256 factor = _mm256_loadu_ps(up + i);
        const __m256i low = rounded(_mm256_maskload_ps(x + i, lanes[v]), factor);
        const __m256i high = second != nullptr ? rounded(_mm256_maskload_ps(second + i, lanes[v]), factor) : _mm256_setzero_si256();
        _mm256_storeu_ps(to + t * apart + v * kLanes, _mm256_castsi256_ps(_mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xaa)));
      }
    }
  }
}

template <std::int64_t each>
void copy_tiles(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* to, std::int64_t apart) {
  constexpr std::int64_t kVectors = each == kPanel ? 4 : 6, kColumns = kVectors * kLanes;  // two panels, or eight pieces of 6, or two of 24
  static_assert(kColumns % each == 0);
  for (; width > 0; width -= kColumns, x += kColumns, to += kColumns / each * apart) {
    copy_columns<each, kVectors>(x, step, depth, std::min(width, kColumns), to, apart);
  }
}

template <std::int64_t rows>
std::int64_t piece_size(std::int64_t depth) {
  return head(rows) + pairs(depth) * rows + head(rows) - rows;  // whole vectors are written
}
std::int64_t panel_size(std::int64_t depth) { return kPanel + pairs(depth) * kPanel; }

template <std::int64_t rows>
constexpr TileLoops loops_of(decltype(TileLoops::multiply) multiply) {
  return {rows, /*scaled=*/true, kDepth, piece_size<rows>, panel_size, multiply, copy_tiles<rows>, copy_tiles<kPanel>, transpose_pieces<rows>, transpose_panels};
}

namespace avx2 {
#include "model/fused/vectors/avx2.h"
#include "model/fused/vectors/tile.h"
struct Sums {
  __m256i v;
  static Sums zero() { return {_mm256_setzero_si256()}; }
  // To each lane the products of a pair and its own.
  void add(const float& pair, Vector pairs) {
    v = _mm256_add_epi32(v, _mm256_madd_epi16(_mm256_castps_si256(_mm256_broadcast_ss(&pair)), _mm256_castps_si256(pairs.v)));
  }
  Vector floats() const { return {_mm256_cvtepi32_ps(v)}; }
};
#include "model/fused/vectors/integer_product.h"
}  // namespace avx2

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx512vnni,fma")
namespace avx512 {
#include "model/fused/vectors/avx512.h"
#include "model/fused/vectors/tile.h"
struct Sums {
  __m512i v;
  static Sums zero() { return {_mm512_setzero_si512()}; }
  // Both in one instruction. Asked for by its intrinsic, GCC 12 moves each sum to another register and, with none left, to memory.
  void add(const float& pair, Vector pairs) { asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(v) : "v"(pairs.v), "m"(pair)); }
  Vector floats() const { return {_mm512_maskz_cvtepi32_ps(0xffff, v)}; }
};
#include "model/fused/vectors/integer_product.h"
}  // namespace avx512
#pragma GCC pop_options

}  // namespace

#pragma GCC pop_options
#endif

const TileLoops* integer_loops() {
#ifdef CELLCAM_WIDE_LOOPS
  if (instructions() == Instructions::avx2) return &avx2::kLoops;
  if (instructions() == Instructions::avx512 && __builtin_cpu_supports("avx512vnni")) return &avx512::kLoops;
#endif
  return nullptr;
}

}  // namespace cellcam::model::fused
