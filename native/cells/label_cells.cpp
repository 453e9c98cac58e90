#include "cells/label_cells.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "cells/components.h"
#include "cells/morphology.h"
#include "cells/otsu.h"
#include "cells/watershed.h"
#include "error.h"

namespace cellcam::cells {

namespace {

enum Class { kBorder = 1, kInterior = 2 };

constexpr double kNucleusThreshold = 0.4, kMarkerThreshold = kNucleusThreshold + -0.25, kLeastCellThreshold = 0.22,
                 kBorderThreshold = 0.05;

// In pixels, for images of this scale.
struct Sizes {
  std::int64_t marker, hole, mask, nucleus, cell, radius;

  explicit Sizes(double scale)
      : marker(scaled(500 * scale)),
        hole(scaled(1000 * scale)),
        mask(scaled(8 * scale)),
        nucleus(scaled(2500 * scale)),
        cell(scaled(5500 * scale)),
        radius(scaled(6 * std::sqrt(scale))) {}

 private:
  static std::int64_t scaled(double v) { return std::max<std::int64_t>(1, std::llrint(v)); }  // half to even
};

Bytes plane(const std::uint8_t* map, const ProbabilityMaps& maps, Class which) {
  Bytes out(maps.height, maps.width);
  std::uint8_t* to = out.values.data();
  for (std::int64_t i = 0, n = out.size(); i < n; ++i) to[i] = map[3 * i + which];
  return out;
}

double unit(std::uint8_t value) { return value / 255.0; }

// The smallest byte above the threshold, or 256.
int first_above(double threshold) {
  int v = 0;
  while (v < 256 && !(unit(static_cast<std::uint8_t>(v)) > threshold)) ++v;
  return v;
}

Mask above(const Bytes& map, double threshold) {
  const int first = first_above(threshold);
  return map_grid<std::uint8_t>(map, [first](std::uint8_t v) { return v >= first; });
}

Mask nonzero(const Labels& labels) {
  return map_grid<std::uint8_t>(labels, [](std::int32_t v) { return v != 0; });
}

// The cores of the nuclei. The sum of the borders wraps at 256, as the original's does.
Mask nucleus_cores(const Bytes& interior, const Bytes& border, const Bytes& cell_border) {
  const int first = first_above(kMarkerThreshold);
  int clear = 255;
  while (clear >= 0 && !(1 - unit(static_cast<std::uint8_t>(clear)) > kBorderThreshold)) --clear;
  const Bytes sum = map_grids<std::uint8_t>(border, cell_border, [](std::uint8_t a, std::uint8_t b) { return a + b; });
  return map_grids<std::uint8_t>(sum, interior, [=](std::uint8_t s, std::uint8_t v) { return (s <= clear) & (v >= first); });
}

Labels nucleus_labels(const Bytes& interior, Mask cores, const Sizes& sizes) {
  remove_small(cores, sizes.marker, Neighbours::four);
  Mask region = above(interior, kNucleusThreshold);
  fill_small_holes(region, sizes.hole);
  remove_small(region, sizes.mask, Neighbours::four);
  Labels nuclei = watershed_with_line(components(cores, Neighbours::four), region);
  remove_small_labels(nuclei, sizes.nucleus);
  return components(nuclei, Neighbours::eight);
}

double cell_threshold(const Bytes& interior) {
  std::array<std::int64_t, 256> counts{};
  for (const std::uint8_t v : interior.values) ++counts[v];
  return std::max(kLeastCellThreshold, otsu_threshold(counts) * 0.5);
}

// New labels of what the boundaries between the old ones enclose.
Labels fill_labels(const Labels& labels) {
  const Mask boundary = boundaries(labels);
  Mask inside = map_grids<std::uint8_t>(labels, boundary, [](std::int32_t label, std::uint8_t b) { return (label != 0) & (b == 0); });
  fill_holes(inside);
  return components(inside, Neighbours::four);
}

Labels cell_labels(const Bytes& interior, const Bytes& border, const Labels& nuclei, const Sizes& sizes, bool wrap) {
  const Bytes height = map_grid<std::uint8_t>(interior, [](std::uint8_t v) { return 255 - v; });
  Labels cells = watershed(height, nuclei, above(interior, cell_threshold(interior)));
  remove_small_labels(cells, sizes.cell);
  if (wrap) {
    for (std::int32_t& label : cells.values) label &= 255;
  }
  cells = fill_labels(close_with_disk(cells, sizes.radius));
  const int first = first_above(kBorderThreshold);
  const Mask region = map_grids<std::uint8_t>(border, cells, [=](std::uint8_t v, std::int32_t cell) { return (v >= first) | (cell != 0); });
  cells = fill_labels(watershed(height, cells, region));
  Mask found = nonzero(cells);
  remove_small(found, sizes.cell, Neighbours::eight);
  return components(found, Neighbours::eight);
}

// Nuclei by the numbers of their cells.
Labels nuclei_of(const Labels& cells, const Labels& nuclei, const Sizes& sizes) {
  Mask both = map_grids<std::uint8_t>(cells, nuclei, [](std::int32_t cell, std::int32_t nucleus) { return (cell != 0) & (nucleus != 0); });
  remove_small(both, sizes.nucleus, Neighbours::eight);
  return map_grids<std::int32_t>(cells, both, [](std::int32_t cell, std::uint8_t kept) { return kept ? cell : 0; });
}

}  // namespace

void require_numbers(std::int64_t cells) {
  if (cells > 65535) throw Error("ERR_IMAGE", std::to_string(cells) + " cells are more than a 16-bit mask can number");
}

Instances label_cells(const ProbabilityMaps& maps, double scale, bool wrap) {
  const Sizes sizes(scale);
  const Bytes nucleus_interior = plane(maps.nuclei, maps, kInterior), nucleus_border = plane(maps.nuclei, maps, kBorder);
  const Bytes interior = plane(maps.cells, maps, kInterior), border = plane(maps.cells, maps, kBorder);
  const Labels nuclei = nucleus_labels(nucleus_interior, nucleus_cores(nucleus_interior, nucleus_border, border), sizes);
  Labels cells = cell_labels(interior, border, nuclei, sizes, wrap);
  require_numbers(static_cast<std::int64_t>(areas(cells).size()) - 1);
  return {nuclei_of(cells, nuclei, sizes), std::move(cells)};
}

}  // namespace cellcam::cells
