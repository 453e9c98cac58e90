// Products of integer_loops.h, for the instructions of the region that includes this (vector.h, tile.h) after Sums, whole numbers for each lane.

struct Integers {
  static void add_products(const float* x, const Vector (&row)[kVectors], Sums (&sums)[kVectors]) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[v].add(*x, row[v]);
  }
  template <int n>
  static void multiply(const float* piece, const float* panel, std::int64_t depth, const SumTile& to) {
    Sums whole[n][kVectors];
    sum_up<Integers>(piece + head(kPieceRows), panel + kPanel, pairs(depth), to, whole);
    Vector sums[n][kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const Vector scale = Vector::load(panel + v * kLanes);
#pragma GCC unroll 24
      for (int r = 0; r < n; ++r) sums[r][v] = whole[r][v].floats() * Vector::all(piece[r]) * scale;
    }
    store(sums, to);
  }
};

void multiply(const float* piece, const float* panel, std::int64_t depth, const SumTile& to) { multiply_some<Integers, kPieceRows>(piece, panel, depth, to); }

constexpr TileLoops kLoops = loops_of<kPieceRows>(multiply);
