// Sums of a tile to where they go, for the instructions of the region that includes this (vector.h).

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
