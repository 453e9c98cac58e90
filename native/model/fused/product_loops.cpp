#include "model/fused/product_loops.h"

#include <algorithm>

#include "model/fused/panel_loops.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CELLCAM_PRODUCT_LOOPS
#include "model/fused/tile_loops.h"
#endif

namespace cellcam::model::fused {

#ifdef CELLCAM_PRODUCT_LOOPS
#pragma GCC push_options
#pragma GCC target("avx2,fma,popcnt")

namespace {

template <int n>
inline void multiply_rows(const float* x, const float* y, std::int64_t depth, const SumTile& to) {
  __m256 sums[n][2];
#pragma GCC unroll 6
  for (int r = 0; r < n; ++r) {
    sums[r][0] = sums[r][1] = _mm256_setzero_ps();
    ask(to.sums + r * to.step);
  }
#pragma GCC unroll 4
  for (std::int64_t k = 0; k < depth; ++k, x += kPiece, y += kPanel) {
    const __m256 y0 = _mm256_loadu_ps(y), y1 = _mm256_loadu_ps(y + kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < n; ++r) {
      const __m256 factor = _mm256_broadcast_ss(x + r);
      sums[r][0] = _mm256_fmadd_ps(factor, y0, sums[r][0]);
      sums[r][1] = _mm256_fmadd_ps(factor, y1, sums[r][1]);
    }
  }
  store(sums, to);
}

template <int n>
inline void multiply_some(const float* x, const float* y, std::int64_t depth, const SumTile& to) {
  if constexpr (n > 1) {
    if (to.rows < n) return multiply_some<n - 1>(x, y, depth, to);
  }
  multiply_rows<n>(x, y, depth, to);
}

void multiply(const float* piece, const float* panel, std::int64_t depth, const SumTile& to) { multiply_some<kPiece>(piece, panel, depth, to); }

template <int panels>
inline void multiply_lists(const RowList* x, const float* panel, std::int64_t apart, SumTile to) {
  for (const RowList* end = x + to.rows; x < end; ++x, to.sums += to.step) {
    __m256 sums[1][2 * panels];
    const char* y[panels];
#pragma GCC unroll 6
    for (int p = 0; p < panels; ++p) {
      y[p] = reinterpret_cast<const char*>(panel + p * apart);
      sums[0][2 * p] = sums[0][2 * p + 1] = _mm256_setzero_ps();
      ask(to.sums + p * kPanel);
    }
#pragma GCC unroll 4
    for (std::int64_t k = 0; k < x->count; ++k) {
      const __m256 factor = _mm256_broadcast_ss(x->values + k);
      const std::int64_t row = x->at[k];
#pragma GCC unroll 12
      for (int v = 0; v < 2 * panels; ++v) {
        sums[0][v] = _mm256_fmadd_ps(factor, _mm256_loadu_ps(reinterpret_cast<const float*>(y[v / 2] + row) + v % 2 * kLanes), sums[0][v]);
      }
    }
    store(sums, to);
  }
}

void multiply_listed(const RowList* rows, const float* panel, std::int64_t apart, std::int64_t panels, const SumTile& to) {
  switch (panels) {
    case 1: return multiply_lists<1>(rows, panel, apart, to);
    case 2: return multiply_lists<2>(rows, panel, apart, to);
    case 3: return multiply_lists<3>(rows, panel, apart, to);
    case 4: return multiply_lists<4>(rows, panel, apart, to);
    case 5: return multiply_lists<5>(rows, panel, apart, to);
    default: return multiply_lists<kWide>(rows, panel, apart, to);
  }
}

constexpr int kStreams = 4;          // of a matrix's panels that are written at a time

// Masked loads touch no memory beyond: what lies there need not be a number, or memory at all. Masked stores would take as long as dozens of others.
void copy_pieces(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* pieces, std::int64_t apart) {
  constexpr std::int64_t kTogether = 8;
  for (; width > 0; width -= kTogether * kPiece, x += kTogether * kPiece, pieces += kTogether * apart) {
    const std::int64_t whole = std::min(kTogether, width / kPiece), left = whole < kTogether ? width - whole * kPiece : 0;
    const __m256i all = first_lanes(kPiece), some = first_lanes(left);
    const float* from = x;
    float* to = pieces;
    for (std::int64_t k = 0; k < depth; ++k, from += step, to += kPiece) {
      for (std::int64_t i = 0; i < kTogether * kPiece && i < width; i += 16) ask(from + kAhead * step + i);
      for (std::int64_t p = 0; p < whole; ++p) _mm256_storeu_ps(to + p * apart, _mm256_maskload_ps(from + p * kPiece, all));
      if (left > 0) _mm256_storeu_ps(to + whole * apart, _mm256_maskload_ps(from + whole * kPiece, some));
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

void transpose_pieces(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* pieces, std::int64_t apart) {
  for (; width > 0; width -= kPiece, x += kPiece * step, pieces += apart) transpose_rows<kPiece>(x, step, depth, width, pieces, kPiece);
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

std::int64_t piece_size(std::int64_t depth) { return depth * kPiece + kPieceSlack; }
std::int64_t panel_size(std::int64_t depth) { return depth * kPanel; }

constexpr std::int64_t kDepth = 512;  // a panel of the size of a usual first cache
constexpr ProductLoops kLoops{{kDepth, piece_size, panel_size, multiply, copy_pieces, copy_panels, transpose_pieces, transpose_panels},
                              multiply_listed, list_columns, list_rows, transpose};

}  // namespace

#pragma GCC pop_options
#endif

const ProductLoops* product_loops() {
#ifdef CELLCAM_PRODUCT_LOOPS
  if (panel_loops() != nullptr) return &kLoops;
#endif
  return nullptr;
}

}  // namespace cellcam::model::fused
