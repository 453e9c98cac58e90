#pragma once
#include <algorithm>
#include <cstdint>

namespace cellcam::cells {

// Where position i of a line of n pixels lies once the line is mirrored with its ends repeated: … 1 0 0 1 … n−1 n−1 ….
inline std::int64_t mirrored(std::int64_t i, std::int64_t n) {
  const std::int64_t period = 2 * n, at = ((i % period) + period) % period;
  return at < n ? at : period - 1 - at;
}

// A line of n pixels with `radius` more at either end, mirrored.
template <typename T>
void mirror_line(const T* line, std::int64_t n, std::int64_t radius, T* out) {
  std::copy_n(line, n, out + radius);
  for (std::int64_t x = 1; x <= radius; ++x) {
    out[radius - x] = line[mirrored(-x, n)];
    out[radius + n - 1 + x] = line[mirrored(n - 1 + x, n)];
  }
}

}  // namespace cellcam::cells
