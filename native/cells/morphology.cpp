#include "cells/morphology.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "cells/mirror.h"

namespace cellcam::cells {

namespace {

// Half the width of the disk at each distance from its centre row.
std::vector<std::int64_t> half_widths(std::int64_t radius) {
  std::vector<std::int64_t> out;
  for (std::int64_t dy = 0; dy <= radius; ++dy) {
    auto dx = static_cast<std::int64_t>(std::sqrt(static_cast<double>(radius * radius - dy * dy)));
    while (dx * dx + dy * dy > radius * radius) --dx;
    while ((dx + 1) * (dx + 1) + dy * dy <= radius * radius) ++dx;
    out.push_back(dx);
  }
  return out;
}

// The extreme, by Pick, over a disk around every pixel: rows are widened once for every width that the disk has, so that the work
// grows with the radius and not with the area.
template <typename T, typename Pick>
Grid<T> filter_with_disk(const Grid<T>& in, std::int64_t radius, Pick pick) {
  const std::int64_t h = in.height, w = in.width, padded = w + 2 * radius;
  const std::vector<std::int64_t> half = half_widths(radius);
  Grid<T> out(h, w);
  std::vector<std::uint8_t> begun(static_cast<std::size_t>(h), 0);
  std::vector<T> line(static_cast<std::size_t>(padded)), wide(static_cast<std::size_t>(w));
  const auto fold = [&](std::int64_t y) {
    T* to = out.row(y);
    const T* from = wide.data();
    if (std::exchange(begun[y], 1)) {
      for (std::int64_t x = 0; x < w; ++x) to[x] = pick(to[x], from[x]);
    } else {
      std::copy_n(from, w, to);
    }
  };
  for (std::int64_t from = -radius; from < h + radius; ++from) {
    mirror_line(in.row(mirrored(from, h)), w, radius, line.data());
    std::copy_n(line.begin() + radius, w, wide.begin());
    std::int64_t reach = 0;
    for (std::int64_t dy = radius; dy >= 0; --dy) {
      for (; reach < half[dy]; ++reach) {
        const T *left = line.data() + radius - reach - 1, *right = line.data() + radius + reach + 1;
        T* to = wide.data();
        for (std::int64_t x = 0; x < w; ++x) to[x] = pick(to[x], pick(left[x], right[x]));
      }
      if (from - dy >= 0 && from - dy < h) fold(from - dy);
      if (dy > 0 && from + dy >= 0 && from + dy < h) fold(from + dy);
    }
  }
  return out;
}

template <typename T>
Grid<T> dilate(const Grid<T>& in, std::int64_t radius) {
  return filter_with_disk(in, radius, [](T a, T b) { return std::max(a, b); });
}

template <typename T>
Grid<T> erode(const Grid<T>& in, std::int64_t radius) {
  return filter_with_disk(in, radius, [](T a, T b) { return std::min(a, b); });
}

}  // namespace

Labels close_with_disk(const Labels& labels, std::int64_t radius) {
  if (*std::max_element(labels.values.begin(), labels.values.end()) > INT16_MAX) return erode(dilate(labels, radius), radius);
  // Every processor has vector instructions for extremes of this type.
  const auto narrow = map_grid<std::int16_t>(labels, [](std::int32_t v) { return v; });
  return map_grid<std::int32_t>(erode(dilate(narrow, radius), radius), [](std::int16_t v) { return v; });
}

Mask open_with_disk(const Mask& mask, std::int64_t radius) { return dilate(erode(mask, radius), radius); }

Mask boundaries(const Labels& labels) {
  const std::int64_t h = labels.height, w = labels.width;
  Mask out(h, w);
  for (std::int64_t y = 0; y < h; ++y) {
    // A repeated edge pixel never differs from its own, so rows and columns beyond the edge can be the edge's.
    const std::int32_t *row = labels.row(y), *up = labels.row(std::max<std::int64_t>(y - 1, 0)), *down = labels.row(std::min(y + 1, h - 1));
    std::uint8_t* to = out.row(y);
    for (std::int64_t x = 0; x < w; ++x) to[x] = (row[x] != up[x]) | (row[x] != down[x]);
    for (std::int64_t x = 0; x + 1 < w; ++x) {
      const std::uint8_t differs = row[x] != row[x + 1];
      to[x] |= differs;
      to[x + 1] |= differs;
    }
  }
  return out;
}

}  // namespace cellcam::cells
