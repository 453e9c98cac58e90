#include "cells/quick_segmenter.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "cells/components.h"
#include "cells/morphology.h"
#include "cells/otsu.h"
#include "cells/watershed.h"

namespace cellcam::cells {

namespace {

// Chosen on seven public fields and on drawn ones; docs/segmentation.md says how much each matters.
constexpr double kNucleusSigma = 1.5, kNucleusThreshold = 0.9, kOpening = 2, kDistanceSigma = 3, kPeak = 3, kNucleusArea = 150;
constexpr double kCellSigma = 2, kCellThreshold = 0.7, kDarkness = 0.5, kReach = 100, kCellArea = 300;
constexpr float kLeastContrast = 2.0f / 255;  // of a stain that shows anything

// Values 0…1 as bytes, and what they are counted as.
Bytes to_bytes(const Plane& plane) {
  return map_grid<std::uint8_t>(plane, [](float v) { return std::lround(255 * std::clamp(v, 0.0f, 1.0f)); });
}

// Above `factor` times Otsu's threshold.
Mask foreground(const Plane& plane, double factor) {
  std::array<std::int64_t, 256> counts{};
  for (const std::uint8_t v : to_bytes(plane).values) ++counts[v];
  const auto threshold = static_cast<float>(otsu_threshold(counts) * factor);
  return map_grid<std::uint8_t>(plane, [threshold](float v) { return v > threshold; });
}

// From the darkest to the brightest, without outliers, to 0…1; nothing if they hardly differ.
Plane stretched(const Plane& plane) {
  const float low = quantile(plane.values, 0.01), high = quantile(plane.values, 0.995);
  if (high - low < kLeastContrast) return Plane(plane.height, plane.width);
  return map_grid<float>(plane, [=](float v) { return std::clamp((v - low) / (high - low), 0.0f, 1.0f); });
}

Plane square_root(const Plane& plane) {
  return map_grid<float>(plane, [](float v) { return std::sqrt(std::max(v, 0.0f)); });
}

// The peaks that stand out by `prominence` above the highest pass to a higher one; plane 0 is sea level. Each is one pixel.
// Pixels are raised from the water in descending order: where two islands meet, the lower one's peak is known to stand out or not.
Labels peaks(const Plane& plane, float prominence) {
  const std::int64_t n = plane.size();
  std::vector<std::int32_t> order(static_cast<std::size_t>(n)), island(order.size(), -1);
  std::iota(order.begin(), order.end(), 0);
  order.erase(std::remove_if(order.begin(), order.end(), [&](std::int32_t i) { return plane[i] <= 0; }), order.end());
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return plane[a] != plane[b] ? plane[a] > plane[b] : a < b; });
  // The root of an island is its peak.
  const auto root = [&](std::int32_t i) {
    while (island[i] != i) i = island[i] = island[island[i]];
    return i;
  };
  Labels out(plane.height, plane.width);
  std::int32_t count = 0;
  for (const std::int32_t i : order) {
    island[i] = i;
    const std::int64_t y = i / plane.width, x = i % plane.width;
    for (std::int64_t v = std::max<std::int64_t>(y - 1, 0); v <= std::min(y + 1, plane.height - 1); ++v) {
      for (std::int64_t u = std::max<std::int64_t>(x - 1, 0); u <= std::min(x + 1, plane.width - 1); ++u) {
        const std::int64_t near = v * plane.width + u;
        if (island[near] < 0) continue;
        const std::int32_t a = root(i), b = root(static_cast<std::int32_t>(near));
        if (a == b) continue;
        const std::int32_t low = plane[a] < plane[b] || (plane[a] == plane[b] && a > b) ? a : b, high = low == a ? b : a;
        if (plane[low] - plane[i] >= prominence) out[low] = ++count;
        island[low] = high;
      }
    }
  }
  for (const std::int32_t i : order) {
    if (island[i] == i && plane[i] >= prominence) out[i] = ++count;
  }
  return out;
}

// Gives holes that one cell encloses to that cell; gaps between several cells stay.
void fill_each(Labels& labels) {
  constexpr std::int32_t kNobody = -1;
  const Labels gaps = components(map_grid<std::uint8_t>(labels, [](std::int32_t v) { return v == 0; }), Neighbours::four);
  std::vector<std::int32_t> owner(areas(gaps).size(), 0);
  const auto meet = [&](std::int32_t gap, std::int32_t cell) {
    owner[gap] = owner[gap] == 0 || owner[gap] == cell ? cell : kNobody;
  };
  const std::int64_t h = labels.height, w = labels.width;
  for (std::int64_t y = 0; y < h; ++y) {
    for (std::int64_t x = 0; x < w; ++x) {
      const std::int32_t gap = gaps.row(y)[x];
      if (gap == 0) continue;
      if (y == 0 || x == 0 || y == h - 1 || x == w - 1) {
        owner[gap] = kNobody;
        continue;
      }
      for (const std::int64_t step : {-w, std::int64_t{-1}, std::int64_t{1}, w}) {
        if (const std::int32_t cell = labels[y * w + x + step]; cell != 0) meet(gap, cell);
      }
    }
  }
  for (std::int64_t i = 0; i < labels.size(); ++i) {
    if (gaps[i] != 0 && owner[gaps[i]] > 0) labels[i] = owner[gaps[i]];
  }
}

Labels find_nuclei(const Plane& stain, double unit) {
  if (quantile(stain.values, 0.995) - quantile(stain.values, 0.01) < kLeastContrast) return Labels(stain.height, stain.width);
  Mask mask = foreground(square_root(smooth(stain, kNucleusSigma * unit)), kNucleusThreshold);
  fill_holes(mask);
  mask = open_with_disk(mask, std::max<std::int64_t>(1, std::lround(kOpening * unit)));
  const Plane depth = smooth(distance_transform(mask), kDistanceSigma * unit);
  const float deepest = std::max(1e-6f, *std::max_element(depth.values.begin(), depth.values.end()));
  const Bytes height = map_grid<std::uint8_t>(depth, [=](float v) { return 255 - std::lround(255 * v / deepest); });
  Labels nuclei = watershed(height, peaks(depth, static_cast<float>(kPeak * unit)), mask);
  remove_small_labels(nuclei, std::llround(kNucleusArea * unit * unit));
  return nuclei;
}

// How late a pixel is flooded: far from nuclei and dark is late.
Bytes lateness(const Plane& brightness, const Labels& nuclei, double unit) {
  const Plane away = distance_transform(map_grid<std::uint8_t>(nuclei, [](std::int32_t v) { return v == 0; }));
  Plane out(brightness.height, brightness.width);
  for (std::int64_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<float>(kDarkness * (1 - brightness[i]) + away[i] / (kReach * unit));
  }
  return to_bytes(out);
}

Labels find_cells(const std::vector<Plane>& stains, const Labels& nuclei, double unit) {
  Plane mean(nuclei.height, nuclei.width);
  for (const Plane& stain : stains) {
    const Plane bright = stretched(stain);
    for (std::int64_t i = 0; i < mean.size(); ++i) mean[i] += bright[i] / static_cast<float>(stains.size());
  }
  const Plane brightness = square_root(smooth(mean, kCellSigma * unit));
  Mask region = foreground(brightness, kCellThreshold);
  for (std::int64_t i = 0; i < region.size(); ++i) region[i] |= nuclei[i] != 0;
  Labels cells = watershed(lateness(brightness, nuclei, unit), nuclei, region);
  remove_small_labels(cells, std::llround(kCellArea * unit * unit));
  fill_each(cells);
  return cells;
}

// Numbers 1, 2, … in the order of the cells' first pixels, and nuclei by the numbers of their cells.
Instances numbered(const Labels& cells, const Labels& nuclei) {
  std::vector<std::int32_t> number(areas(cells).size(), 0);
  std::int32_t next = 0;
  for (const std::int32_t label : cells.values) {
    if (label != 0 && number[label] == 0) number[label] = ++next;
  }
  require_numbers(next);
  Instances out{Labels(cells.height, cells.width), map_grid<std::int32_t>(cells, [&](std::int32_t v) { return number[v]; })};
  for (std::int64_t i = 0; i < cells.size(); ++i) out.nuclei[i] = nuclei[i] == cells[i] ? out.cells[i] : 0;
  return out;
}

}  // namespace

Instances segment_quickly(const Plane& nuclei, const std::vector<Plane>& cells) {
  const double unit = static_cast<double>(std::min(nuclei.height, nuclei.width)) / 512;
  const Labels seeds = find_nuclei(nuclei, unit);
  return numbered(find_cells(cells, seeds, unit), seeds);
}

}  // namespace cellcam::cells
