// Sums of a tile, and where they go, for the instructions of the region that includes this (vector.h).

constexpr std::int64_t kPieceRows = kMostRows;

constexpr bool kLargePieces = kPieceRows > kPanel;  // so panels do not stay in the first cache
constexpr std::int64_t kPanelAhead = 32;            // rows
constexpr std::int64_t kAsked = 4;                  // rows for each line that is asked for: many at once would wait for each other

// Products of n of kPieceRows factors at x and the kPanel factors at y, summed up over `depth` rows of both. Kind::add_products says what four bytes of them mean.
template <typename Kind, typename Sum, int n>
inline void sum_up(const float* x, const float* y, std::int64_t depth, const SumTile& to, Sum (&sums)[n][kVectors]) {
#pragma GCC unroll 24
  for (int r = 0; r < n; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[r][v] = Sum::zero();
    if (!kLargePieces) ask(to.sums + r * to.step);
  }
  const float* c = to.sums;
  const float* const end = c + n * to.step;
  std::int64_t lines = to.ahead->each();
  to.ahead->ask(kLargePieces ? lines - depth / kAsked : lines);
#pragma GCC unroll 4
  for (std::int64_t k = 0; k < depth; ++k, x += kPieceRows, y += kPanel) {
    if (kLargePieces && k % kAsked == 0) {
      if (c < end) ask(c);
      c += to.step;
      if (lines-- > 0) to.ahead->ask();
    }
    if (kLargePieces) ask(y + kPanelAhead * kPanel);
    Vector row[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) row[v] = Vector::load(y + v * kLanes);
#pragma GCC unroll 24
    for (int r = 0; r < n; ++r) Kind::add_products(x + r, row, sums[r]);
  }
}

// The rows there are, n at most.
template <typename Kind, int n>
inline void multiply_some(const float* piece, const float* panel, std::int64_t depth, const SumTile& to) {
  if constexpr (n > 1) {
    if (to.rows < n) return multiply_some<Kind, n - 1>(piece, panel, depth, to);
  }
  Kind::template multiply<n>(piece, panel, depth, to);
}

template <int rows, int vectors>
inline void store(Vector (&sums)[rows][vectors], const SumTile& to) {
  if (to.added) {
#pragma GCC unroll 24
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 12
      for (int v = 0; v < vectors; ++v) sums[r][v] = sums[r][v] + Vector::load(to.sums + r * to.step + v * kLanes);
    }
  }
  if (to.bias != nullptr) {
    const Vector slope = Vector::all(to.slope);
#pragma GCC unroll 12
    for (int v = 0; v < vectors; ++v) {
      const Vector bias = Vector::load(to.bias + v * kLanes);
#pragma GCC unroll 24
      for (int r = 0; r < rows; ++r) sums[r][v] = act(sums[r][v] + bias, slope);
    }
  }
#pragma GCC unroll 24
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 12
    for (int v = 0; v < vectors; ++v) sums[r][v].store(to.sums + r * to.step + v * kLanes);
  }
}
