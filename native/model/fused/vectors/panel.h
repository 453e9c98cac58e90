// Loops of panel_loops.h, for the instructions of the region that includes this (vector.h).

constexpr std::int64_t kAhead = 512;  // floats of the right matrix that are asked for before they are read; of the left one it is the next panel

template <int n>
inline void multiply_rows(const float* x, std::int64_t panel, std::int64_t panels, const float* y, float* c, bool adds) {
  Vector sums[n][kVectors];
#pragma GCC unroll 24
  for (int r = 0; r < n; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[r][v] = Vector::zero();
  }
  for (std::int64_t p = 0; p < panels; ++p, x += panel) {
#pragma GCC unroll 16
    for (int k = 0; k < kPanel; ++k, y += kPanel) {
      Vector row[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) row[v] = Vector::load(y + v * kLanes);
      ask_for<1>(y + kAhead);
#pragma GCC unroll 24
      for (int r = k * n / kPanel; r < (k + 1) * n / kPanel; ++r) ask_for<1>(x + panel + r * kPanel);
#pragma GCC unroll 24
      for (int r = 0; r < n; ++r) {
        const Vector factor = Vector::all(x[r * kPanel + k]);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) sums[r][v] = add(factor, row[v], sums[r][v]);
      }
    }
  }
  if (adds) {
#pragma GCC unroll 24
    for (int r = 0; r < n; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[r][v] = sums[r][v] + Vector::load(c + r * kPanel + v * kLanes);
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
inline void multiply_some(std::int64_t rows, const float* x, std::int64_t panel, std::int64_t panels, const float* y, float* c, bool adds) {
  if constexpr (n > 1) {
    if (rows < n) return multiply_some<n - 1>(rows, x, panel, panels, y, c, adds);
  }
  multiply_rows<n>(x, panel, panels, y, c, adds);
}

void multiply(const float* x, std::int64_t rows, std::int64_t panels, const float* y, float* c, bool adds) {
  const std::int64_t pieces = (rows + kMostRows - 1) / kMostRows;
  for (std::int64_t piece = 0; piece < pieces; ++piece) {  // as even as they can be: a short one has too few sums to keep the units busy
    const std::int64_t first = rows * piece / pieces, next = rows * (piece + 1) / pieces;
    multiply_some<kMostRows>(next - first, x + first * kPanel, rows * kPanel, panels, y, c + first * kPanel, adds);
  }
}

template <int first, int n, int panels>
inline void multiply_columns(const float* x, const float* y, std::int64_t rows, float* c, std::int64_t apart) {
  Vector sums[n][panels][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < n; ++r) {
#pragma GCC unroll 2
    for (int p = 0; p < panels; ++p) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[r][p][v] = Vector::zero();
    }
  }
#pragma GCC unroll 2
  for (std::int64_t i = 0; i < rows; ++i, x += kPanel, y += kPanel) {
    if constexpr (first > 0) ask_for<1>(x + rows * kPanel);  // likely the next one's
    Vector row[panels][kVectors];
#pragma GCC unroll 2
    for (int p = 0; p < panels; ++p) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) row[p][v] = Vector::load(y + p * rows * kPanel + v * kLanes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < n; ++r) {
      const Vector factor = Vector::all(x[first + r]);
#pragma GCC unroll 2
      for (int p = 0; p < panels; ++p) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) sums[r][p][v] = add(factor, row[p][v], sums[r][p][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < n; ++r) {
#pragma GCC unroll 2
    for (int p = 0; p < panels; ++p) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[r][p][v].store(c + p * apart + (first + r) * kPanel + v * kLanes);
    }
  }
}

void multiply_transposed(const float* x, const float* y, std::int64_t rows, std::int64_t panels, float* c, std::int64_t apart) {
  if constexpr (kVectors == 1) {
    if (panels == 2) {
      multiply_columns<0, 8, 2>(x, y, rows, c, apart);
      multiply_columns<8, 8, 2>(x, y, rows, c, apart);
    } else {
      multiply_columns<0, kPanel, 1>(x, y, rows, c, apart);
    }
  } else {
    for (std::int64_t p = 0; p < panels; ++p, y += rows * kPanel, c += apart) {
      multiply_columns<0, 6, 1>(x, y, rows, c, apart);
      multiply_columns<6, 5, 1>(x, y, rows, c, apart);
      multiply_columns<11, 5, 1>(x, y, rows, c, apart);
    }
  }
}

constexpr PanelLoops kLoops{multiply, multiply_transposed};
