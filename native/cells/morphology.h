#pragma once
#include "cells/grid.h"

namespace cellcam::cells {

// Grey closing of labels with a disk, dx² + dy² <= radius²: a maximum filter, then a minimum filter. Beyond an edge the image goes
// on mirrored, the edge pixel repeated.
Labels close_with_disk(const Labels& labels, std::int64_t radius);

// Opening likewise: what no disk within the mask covers is cleared.
Mask open_with_disk(const Mask& mask, std::int64_t radius);

// Pixels whose 3×3 cross holds two different labels, mirrored likewise: boundaries are thick, two pixels between two labels.
Mask boundaries(const Labels& labels);

}  // namespace cellcam::cells
