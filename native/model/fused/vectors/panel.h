// Loops of panel_loops.h, for the instructions of the region that includes this (vector.h).

template <int n>
inline void multiply_rows(const float* x, std::int64_t panel, std::int64_t panels, const float* y, float* c) {
  Vector sums[n][kVectors];
#pragma GCC unroll 24
  for (int r = 0; r < n; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[r][v] = Vector::zero();
  }
  for (std::int64_t p = 0; p < panels; ++p, x += panel) {
#pragma GCC unroll 4
    for (int k = 0; k < kPanel; ++k, y += kPanel) {
      Vector row[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) row[v] = Vector::load(y + v * kLanes);
#pragma GCC unroll 24
      for (int r = 0; r < n; ++r) {
        const Vector factor = Vector::all(x[r * kPanel + k]);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) sums[r][v] = add(factor, row[v], sums[r][v]);
      }
    }
  }
#pragma GCC unroll 24
  for (int r = 0; r < n; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[r][v].store(c + r * kPanel + v * kLanes);
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
  const std::int64_t pieces = (rows + kMostRows - 1) / kMostRows;
  for (std::int64_t piece = 0; piece < pieces; ++piece) {  // as even as they can be: a short one has too few sums to keep the units busy
    const std::int64_t first = rows * piece / pieces, next = rows * (piece + 1) / pieces;
    multiply_some<kMostRows>(next - first, x + first * kPanel, rows * kPanel, panels, y, c + first * kPanel);
  }
}

template <int first, int n>
inline void multiply_columns(const float* x, const float* y, std::int64_t rows, bool adds, float* c) {
  Vector sums[n][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < n; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[r][v] = adds ? Vector::load(c + (first + r) * kPanel + v * kLanes) : Vector::zero();
  }
#pragma GCC unroll 2
  for (std::int64_t i = 0; i < rows; ++i, x += kPanel, y += kPanel) {
    Vector row[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) row[v] = Vector::load(y + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < n; ++r) {
      const Vector factor = Vector::all(x[first + r]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[r][v] = add(factor, row[v], sums[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < n; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[r][v].store(c + (first + r) * kPanel + v * kLanes);
  }
}

void multiply_transposed(const float* x, const float* y, std::int64_t rows, bool adds, float* c) {
  if constexpr (kMostRows >= kPanel) {
    multiply_columns<0, kPanel>(x, y, rows, adds, c);
  } else {
    multiply_columns<0, 6>(x, y, rows, adds, c);
    multiply_columns<6, 5>(x, y, rows, adds, c);
    multiply_columns<11, 5>(x, y, rows, adds, c);
  }
}

constexpr PanelLoops kLoops{multiply, multiply_transposed};
