#include "model/fused/product_loops.h"

#include <algorithm>

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

constexpr int kStreams = 4;          // of a matrix's panels that are written at a time

// Masked loads touch no memory beyond: what lies there need not be a number, or memory at all. Masked stores would take as long as dozens of others.
template <std::int64_t rows>
void copy_pieces(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* pieces, std::int64_t apart) {
  constexpr std::int64_t kTogether = 48 / rows, kVectors = (rows + kLanes - 1) / kLanes;
  __m256i all[kVectors], some[kVectors];
  for (; width > 0; width -= kTogether * rows, x += kTogether * rows, pieces += kTogether * apart) {
    const std::int64_t whole = std::min(kTogether, width / rows), left = whole < kTogether ? width - whole * rows : 0;
    for (std::int64_t v = 0; v < kVectors; ++v) {
      all[v] = first_lanes(rows - v * kLanes);
      some[v] = first_lanes(left - v * kLanes);
    }
    const auto copy = [&](const float* from, float* to, const __m256i(&read)[kVectors]) {
#pragma GCC unroll 3
      for (std::int64_t v = 0; v < kVectors; ++v) _mm256_storeu_ps(to + v * kLanes, _mm256_maskload_ps(from + v * kLanes, read[v]));
    };
    const float* from = x;
    float* to = pieces;
    for (std::int64_t k = 0; k < depth; ++k, from += step, to += rows) {
      for (std::int64_t i = 0; i < kTogether * rows && i < width; i += 16) ask(from + kAhead * step + i);
      for (std::int64_t p = 0; p < whole; ++p) copy(from + p * rows, to + p * apart, all);
      if (left > 0) copy(from + whole * rows, to + whole * apart, some);
    }
  }
}

void copy_panels(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* panels, std::int64_t apart) {
  for (; width > 0; width -= kStreams * kPanel, x += kStreams * kPanel, panels += kStreams * apart) {
    const std::int64_t count = std::min<std::int64_t>(kStreams, width / kPanel);
    const float* from = x;
    float* to = panels;
    for (std::int64_t k = 0; k < depth; ++k, from += step, to += kPanel) {
      for (std::int64_t p = 0; p < count; ++p) {
        ask(from + kAhead * step + p * kPanel);
        _mm256_storeu_ps(to + p * apart, _mm256_loadu_ps(from + p * kPanel));
        _mm256_storeu_ps(to + p * apart + kLanes, _mm256_loadu_ps(from + p * kPanel + kLanes));
      }
    }
  }
}

// n of kLanes rows to columns of `to`, `apart` floats each, zeros for those beyond `width`.
template <int n>
inline void transpose_rows(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* to, std::int64_t apart) {
  for (std::int64_t k = 0; k < depth; k += kLanes, to += kLanes * apart) {
    const std::int64_t left = depth - k;
    __m256 v[kLanes];
    if (width >= n && left >= kLanes) {
#pragma GCC unroll 8
      for (int r = 0; r < kLanes; ++r) {
        if (r < n && k % 16 == 0) ask(x + (r + n) * step + k);
        v[r] = r < n ? _mm256_loadu_ps(x + r * step + k) : _mm256_setzero_ps();
      }
      transpose(v);
#pragma GCC unroll 8
      for (int i = 0; i < kLanes; ++i) _mm256_storeu_ps(to + i * apart, v[i]);
    } else {
      const __m256i read = first_lanes(left);
      for (int r = 0; r < kLanes; ++r) v[r] = r < n && r < width ? _mm256_maskload_ps(x + r * step + k, read) : _mm256_setzero_ps();
      transpose(v);
      for (int i = 0; i < kLanes && i < left; ++i) _mm256_storeu_ps(to + i * apart, v[i]);
    }
  }
}

template <std::int64_t rows>
void transpose_pieces(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* pieces, std::int64_t apart) {
  constexpr int kSome = std::min<std::int64_t>(rows, kLanes);
  for (; width > 0; width -= rows, x += rows * step, pieces += apart) {
    for (std::int64_t r = 0; r < rows; r += kSome) transpose_rows<kSome>(x + r * step, step, depth, width - r, pieces + r, rows);
  }
}

void transpose_panels(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* panels, std::int64_t apart) {
  for (; width > 0; width -= kPanel, x += kPanel * step, panels += apart) {
    transpose_rows<kLanes>(x, step, depth, kLanes, panels, kPanel);
    transpose_rows<kLanes>(x + kLanes * step, step, depth, kLanes, panels + kLanes, kPanel);
  }
}

void transpose(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* to, std::int64_t apart) {
  for (; width > 0; width -= kLanes, x += kLanes * step, to += kLanes) transpose_rows<kLanes>(x, step, depth, width, to, apart);
}

// Of this many vectors of columns, the last of which has lanes to `read`.
template <int vectors>
inline void scale_act_columns(const float* x, std::int64_t step, std::int64_t rows, const float* scale, const float* shift, __m256 slope, float* to,
                              std::int64_t to_step, __m256i read) {
  const auto load = [&](const float* from, int v) {
    return v + 1 < vectors ? _mm256_loadu_ps(from + v * kLanes) : _mm256_maskload_ps(from + v * kLanes, read);
  };
  __m256 a[vectors], b[vectors];
  for (int v = 0; v < vectors; ++v) {
    a[v] = load(scale, v);
    b[v] = load(shift, v);
  }
  for (; rows > 0; --rows, x += step, to += to_step) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const __m256 y = _mm256_fmadd_ps(load(x, v), a[v], b[v]);
      _mm256_storeu_ps(to + v * kLanes, _mm256_blendv_ps(y, _mm256_mul_ps(y, slope), y));
    }
  }
}

void scale_act(const float* x, std::int64_t step, std::int64_t rows, std::int64_t columns, const float* scale, const float* shift, Slope slope, float* to,
               std::int64_t to_step) {
  constexpr int kWide = 4;
  const __m256 s = _mm256_set1_ps(slope);
  std::int64_t c = 0;
  const auto next = [&](auto loop, int vectors) {
    loop(x + c, step, rows, scale + c, shift + c, s, to + c, to_step, first_lanes(columns - c - (vectors - 1) * kLanes));
    c += vectors * kLanes;
  };
  while (c + kWide * kLanes <= columns) next(scale_act_columns<kWide>, kWide);
  while (c < columns) next(scale_act_columns<1>, 1);
}

// For each set of lanes their numbers, then anything.
struct LaneNumbers {
  std::uint8_t of[256][kLanes] = {};
  constexpr LaneNumbers() {
    for (int set = 0; set < 256; ++set) {
      int count = 0;
      for (int lane = 0; lane < kLanes; ++lane) {
        if ((set >> lane & 1) != 0) of[set][count++] = static_cast<std::uint8_t>(lane);
      }
    }
  }
};
constexpr LaneNumbers kLaneNumbers;

// Those of eight values from depth k on that are not zero, what is not a number among them.
inline std::int64_t append(__m256 values, std::int64_t k, RowList& to, std::int64_t count) {
  constexpr int kLogBytes = 6;
  static_assert(kPanel * sizeof(float) == 1 << kLogBytes);
  const int kept = _mm256_movemask_ps(_mm256_cmp_ps(values, _mm256_setzero_ps(), _CMP_NEQ_UQ));
  const __m128i lanes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kLaneNumbers.of[kept]));
  _mm256_storeu_ps(to.values + count, _mm256_permutevar8x32_ps(values, _mm256_cvtepu8_epi32(lanes)));
  const __m128i rows = _mm_add_epi16(_mm_cvtepu8_epi16(lanes), _mm_set1_epi16(static_cast<std::int16_t>(k)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to.at + count), _mm_slli_epi16(rows, kLogBytes));
  return count + __builtin_popcount(static_cast<unsigned>(kept));
}

void list_rows(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, RowList* to) {
  for (; width > 0; --width, x += step, ++to) {
    std::int64_t count = 0;
    for (std::int64_t k = 0; k < depth; k += kLanes) count = append(_mm256_maskload_ps(x + k, first_lanes(depth - k)), k, *to, count);
    to->count = static_cast<std::int32_t>(count);
  }
}

void list_columns(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, RowList* to) {
  for (; width > 0; width -= kLanes, x += kLanes, to += kLanes) {
    const __m256i read = first_lanes(width);
    std::int64_t counts[kLanes] = {};
    for (std::int64_t k = 0; k < depth; k += kLanes) {
      __m256 v[kLanes];
      for (int r = 0; r < kLanes; ++r) v[r] = k + r < depth ? _mm256_maskload_ps(x + (k + r) * step, read) : _mm256_setzero_ps();
      transpose(v);
#pragma GCC unroll 8
      for (int i = 0; i < kLanes; ++i) counts[i] = i < width ? append(v[i], k, to[i], counts[i]) : 0;
    }
    for (int i = 0; i < kLanes && i < width; ++i) to[i].count = static_cast<std::int32_t>(counts[i]);
  }
}

template <std::int64_t rows>
std::int64_t piece_size(std::int64_t depth) {
  return depth * rows + (kLanes - rows % kLanes) % kLanes;  // whole vectors are written
}
std::int64_t panel_size(std::int64_t depth) { return depth * kPanel; }

// With AVX2 a panel of the size of a usual first cache, as it stays there; else a piece stays, and both together fill 45 of 48 KB.
template <std::int64_t rows>
constexpr std::int64_t kDepth = rows > kPanel ? 288 : 512;
// A result is read and written again for every list: multiplying all of it is as fast where there are only two and a value is read for each multiplication.
template <std::int64_t rows>
constexpr std::int64_t kLeastListedDepth = rows > kPanel ? 2 * kListed + 1 : kListed;
template <std::int64_t rows>
constexpr double kMostKept = rows > kPanel ? .45 : .58;
template <std::int64_t rows>
constexpr ProductLoops loops_of(decltype(TileLoops::multiply) multiply, decltype(ProductLoops::multiply_listed) multiply_listed, std::int64_t wide) {
  return {{rows, /*scaled=*/false, kDepth<rows>, piece_size<rows>, panel_size, multiply, copy_pieces<rows>, copy_panels, transpose_pieces<rows>, transpose_panels},
          multiply_listed, wide, kLeastListedDepth<rows>, kMostKept<rows>, list_columns, list_rows, transpose, scale_act};
}

namespace avx2 {
#include "model/fused/vectors/avx2.h"
#include "model/fused/vectors/tile.h"
#include "model/fused/vectors/product.h"
constexpr ProductLoops kLoops = loops_of<kPieceRows>(multiply, multiply_listed, kWide);
}  // namespace avx2

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,fma")
namespace avx512 {
#include "model/fused/vectors/avx512.h"
#include "model/fused/vectors/tile.h"
#include "model/fused/vectors/product.h"
constexpr ProductLoops kLoops = loops_of<kPieceRows>(multiply, multiply_listed, kWide);
}  // namespace avx512
#pragma GCC pop_options

}  // namespace

#pragma GCC pop_options
#endif

const ProductLoops* product_loops() {
#ifdef CELLCAM_WIDE_LOOPS
  if (instructions() == Instructions::avx512) return &avx512::kLoops;
  if (instructions() == Instructions::avx2) return &avx2::kLoops;
#endif
  return nullptr;
}

}  // namespace cellcam::model::fused
