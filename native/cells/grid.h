#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace cellcam::cells {

// A row-major image of one channel.
template <typename T>
struct Grid {
  std::int64_t height = 0, width = 0;
  std::vector<T> values;

  Grid() = default;
  Grid(std::int64_t h, std::int64_t w, T value = T{}) : height(h), width(w), values(static_cast<std::size_t>(h * w), value) {}

  std::int64_t size() const { return height * width; }
  T& operator[](std::int64_t i) { return values[static_cast<std::size_t>(i)]; }
  const T& operator[](std::int64_t i) const { return values[static_cast<std::size_t>(i)]; }
  T* row(std::int64_t y) { return values.data() + y * width; }
  const T* row(std::int64_t y) const { return values.data() + y * width; }
};

using Bytes = Grid<std::uint8_t>;
using Mask = Grid<std::uint8_t>;    // 0 or 1
using Labels = Grid<std::int32_t>;  // 0 is background

// A grid of the same size, f of every value. Through local pointers: a byte that is written may alias anything, so that the grids' own
// pointers would be read again for every pixel.
template <typename R, typename T, typename F>
Grid<R> map_grid(const Grid<T>& in, F&& f) {
  Grid<R> out(in.height, in.width);
  R* to = out.values.data();
  const T* from = in.values.data();
  for (std::int64_t i = 0, n = in.size(); i < n; ++i) to[i] = static_cast<R>(f(from[i]));
  return out;
}

// Of the values of two grids of one size.
template <typename R, typename A, typename B, typename F>
Grid<R> map_grids(const Grid<A>& a, const Grid<B>& b, F&& f) {
  Grid<R> out(a.height, a.width);
  R* to = out.values.data();
  const A* of_a = a.values.data();
  const B* of_b = b.values.data();
  for (std::int64_t i = 0, n = a.size(); i < n; ++i) to[i] = static_cast<R>(f(of_a[i], of_b[i]));
  return out;
}

}  // namespace cellcam::cells
