// Products of product_loops.h, for the instructions of the region that includes this (vector.h, tile.h).

struct Floats {
  static void add_products(const float* x, const Vector (&row)[kVectors], Vector (&sums)[kVectors]) {
    const Vector factor = Vector::all(*x);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[v] = add(factor, row[v], sums[v]);
  }
  template <int n>
  static void multiply(const float* piece, const float* panel, std::int64_t depth, const SumTile& to) {
    Vector sums[n][kVectors];
    sum_up<Floats>(piece, panel, depth, to, sums);
    store(sums, to);
  }
};

void multiply(const float* piece, const float* panel, std::int64_t depth, const SumTile& to) { multiply_some<Floats, kPieceRows>(piece, panel, depth, to); }

template <int panels>
inline void multiply_lists(const RowList* x, const float* panel, std::int64_t apart, SumTile to) {
  const std::int64_t lines = (to.ahead->each() + to.rows - 1) / to.rows;
  for (const RowList* end = x + to.rows; x < end; ++x, to.sums += to.step) {
    to.ahead->ask(lines);
    Vector sums[1][kVectors * panels];
    const char* y[panels];
#pragma GCC unroll 12
    for (int p = 0; p < panels; ++p) {
      y[p] = reinterpret_cast<const char*>(panel + p * apart);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[0][kVectors * p + v] = Vector::zero();
      ask(to.sums + p * kPanel);
    }
#pragma GCC unroll 4
    for (std::int64_t k = 0; k < x->count; ++k) {
      const Vector factor = Vector::all(x->values[k]);
      const std::int64_t row = x->at[k];
#pragma GCC unroll 12
      for (int v = 0; v < kVectors * panels; ++v) {
        sums[0][v] = add(factor, Vector::load(reinterpret_cast<const float*>(y[v / kVectors] + row) + v % kVectors * kLanes), sums[0][v]);
      }
    }
    store(sums, to);
  }
}

template <int n>
inline void multiply_some_lists(const RowList* rows, const float* panel, std::int64_t apart, std::int64_t panels, const SumTile& to) {
  if constexpr (n > 1) {
    if (panels < n) return multiply_some_lists<n - 1>(rows, panel, apart, panels, to);
  }
  multiply_lists<n>(rows, panel, apart, to);
}

constexpr std::int64_t kWide = kLanes == 16 ? 8 : 6;

void multiply_listed(const RowList* rows, const float* panel, std::int64_t apart, std::int64_t panels, const SumTile& to) {
  multiply_some_lists<kWide>(rows, panel, apart, panels, to);
}
