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

namespace avx2 {
#include "model/fused/vectors/avx2.h"
#include "model/fused/vectors/tile.h"
}  // namespace avx2

constexpr std::int64_t kPiece = 6, kPieceSlack = 2, kDepth = 256;
constexpr float kLongest = 46000, kLargest = 32766, kRootOfDepth = 16;

std::int64_t pairs(std::int64_t depth) { return (depth + 1) / 2; }

// Pairs are held as floats in memory.
inline __m256i as_integers(__m256 x) { return _mm256_castps_si256(x); }

template <int n>
inline void multiply_rows(const float* piece, const float* panel, std::int64_t depth, const SumTile& to) {
  __m256i whole[n][2];
#pragma GCC unroll 6
  for (int r = 0; r < n; ++r) {
    whole[r][0] = whole[r][1] = _mm256_setzero_si256();
    ask(to.sums + r * to.step);
  }
  const float *x = piece + kLanes, *y = panel + kPanel;
#pragma GCC unroll 4
  for (std::int64_t k = pairs(depth); k > 0; --k, x += kPiece, y += kPanel) {
    const __m256i y0 = as_integers(_mm256_loadu_ps(y)), y1 = as_integers(_mm256_loadu_ps(y + kLanes));
#pragma GCC unroll 6
    for (int r = 0; r < n; ++r) {
      const __m256i factors = as_integers(_mm256_broadcast_ss(x + r));
      whole[r][0] = _mm256_add_epi32(whole[r][0], _mm256_madd_epi16(factors, y0));
      whole[r][1] = _mm256_add_epi32(whole[r][1], _mm256_madd_epi16(factors, y1));
    }
  }
  avx2::Vector sums[n][2];
  const __m256 scale0 = _mm256_loadu_ps(panel), scale1 = _mm256_loadu_ps(panel + kLanes);
#pragma GCC unroll 6
  for (int r = 0; r < n; ++r) {
    const __m256 scale = _mm256_broadcast_ss(piece + r);
    sums[r][0] = {_mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(whole[r][0]), scale), scale0)};
    sums[r][1] = {_mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(whole[r][1]), scale), scale1)};
  }
  avx2::store(sums, to);
}

template <int n>
inline void multiply_some(const float* piece, const float* panel, std::int64_t depth, const SumTile& to) {
  if constexpr (n > 1) {
    if (to.rows < n) return multiply_some<n - 1>(piece, panel, depth, to);
  }
  multiply_rows<n>(piece, panel, depth, to);
}

void multiply(const float* piece, const float* panel, std::int64_t depth, const SumTile& to) {
  to.ahead->ask(to.ahead->each());
  multiply_some<kPiece>(piece, panel, depth, to);
}

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

void transpose_pieces(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* pieces, std::int64_t apart) {
  for (; width > 0; width -= kPiece, x += kPiece * step, pieces += apart) transpose_rows<kPiece>(x, step, depth, width, pieces + kLanes, kPiece, pieces);
}

void transpose_panels(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* panels, std::int64_t apart) {
  for (; width > 0; width -= kPanel, x += kPanel * step, panels += apart) {
    transpose_rows<kLanes>(x, step, depth, kLanes, panels + kPanel, kPanel, panels);
    transpose_rows<kLanes>(x + kLanes * step, step, depth, kLanes, panels + kPanel + kLanes, kPanel, panels + kLanes);
  }
}

constexpr std::int64_t kPieceVectors = 6, kPanelVectors = 4;  // of columns: eight pieces, two panels

// Up to so many `vectors` of columns to tiles of `each` columns; their scales before them, at `head` floats.
template <std::int64_t each, std::int64_t head, std::int64_t vectors>
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
  constexpr std::int64_t kVectors = each > kLanes ? 2 : 1;
  const std::int64_t tiles = (width + each - 1) / each;
  const __m256i all = first_lanes(std::min<std::int64_t>(each, kLanes)), some = first_lanes(width - (tiles - 1) * each);
  for (std::int64_t t = 0; t < tiles; ++t) {
    for (std::int64_t v = 0; v < kVectors * kLanes; v += kLanes) _mm256_storeu_ps(to + t * apart + v, _mm256_loadu_ps(down + t * each + v));
  }
  to += head;
  for (std::int64_t k = 0; k < depth; k += 2, x += 2 * step, to += each) {
    const float* second = k + 1 < depth ? x + step : nullptr;
    for (std::int64_t t = 0; t < tiles; ++t) {
      const __m256i read = kVectors == 1 && t + 1 == tiles ? some : all;
      for (std::int64_t v = 0; v < kVectors * kLanes; v += kLanes) {
        const std::int64_t i = t * each + v;
        const __m256 factor = _mm256_loadu_ps(up + i);
        const __m256i low = rounded(_mm256_maskload_ps(x + i, read), factor);
        const __m256i high = second != nullptr ? rounded(_mm256_maskload_ps(second + i, read), factor) : _mm256_setzero_si256();
        _mm256_storeu_ps(to + t * apart + v, _mm256_castsi256_ps(_mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xaa)));
      }
    }
  }
}

template <std::int64_t each, std::int64_t head, std::int64_t vectors>
void copy_tiles(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* to, std::int64_t apart) {
  constexpr std::int64_t kColumns = vectors * kLanes;
  for (; width > 0; width -= kColumns, x += kColumns, to += kColumns / each * apart) {
    copy_columns<each, head, vectors>(x, step, depth, std::min(width, kColumns), to, apart);
  }
}

std::int64_t piece_size(std::int64_t depth) { return kLanes + pairs(depth) * kPiece + kPieceSlack; }
std::int64_t panel_size(std::int64_t depth) { return kPanel + pairs(depth) * kPanel; }

constexpr TileLoops kLoops{kPiece, /*scaled=*/true, kDepth, piece_size, panel_size, multiply, copy_tiles<kPiece, kLanes, kPieceVectors>, copy_tiles<kPanel, kPanel, kPanelVectors>, transpose_pieces, transpose_panels};

}  // namespace

#pragma GCC pop_options
#endif

const TileLoops* integer_loops() {
#ifdef CELLCAM_WIDE_LOOPS
  if (instructions() == Instructions::avx2) return &kLoops;
#endif
  return nullptr;
}

}  // namespace cellcam::model::fused
