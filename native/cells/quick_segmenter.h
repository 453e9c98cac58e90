#pragma once
#include "cells/label_cells.h"
#include "cells/smooth.h"

namespace cellcam::cells {

/**
 * Cells without any network, all planes (h, w) with values 0…1. Nuclei: threshold of the smoothed stain, cut where the distance to the
 * background has two peaks. Cells: watershed from the nuclei, near and bright pixels first, as far as the cell stains reach.
 * Lengths are in proportion to the image's shorter side: made for fields of 10 to 50 cells. One cell a nucleus.
 * Throws Error for more than 65535 cells.
 */
Instances segment_quickly(const Plane& nuclei, const std::vector<Plane>& cells);

}  // namespace cellcam::cells
