#pragma once
#include "cells/grid.h"

namespace cellcam::cells {

// What HPA-Cell-Segmentation's networks say of a field, each (h, w, 3): background (left out), border, interior as 0…255.
struct ProbabilityMaps {
  std::int64_t height, width;
  const std::uint8_t* nuclei;
  const std::uint8_t* cells;
};

struct Instances {
  Labels nuclei, cells;  // a nucleus has the number of its cell
};

// Throws Error for more cells than a 16-bit mask can number.
void require_numbers(std::int64_t cells);

/**
 * Cells and their nuclei from the two maps, as HPA-Cell-Segmentation 0.1.7's label_cell does on scikit-image 0.26.
 * `scale` is the area of a pixel of a full-size image over that of a pixel here, (512/image width)² at 512 pixels; it scales the
 * sizes below which things are removed. `wrap` keeps the original's uint8 labels on the way, in which cell 256 is lost.
 * Throws Error for more than 65535 cells.
 */
Instances label_cells(const ProbabilityMaps& maps, double scale, bool wrap);

}  // namespace cellcam::cells
