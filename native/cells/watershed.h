#pragma once
#include "cells/grid.h"

namespace cellcam::cells {

// The two watersheds below are scikit-image 0.26's with 4 neighbours, pixel for pixel: pixels are flooded by (value, age), and what
// that leaves open, the order of marker pixels of one value, is as its binary heap has it. Markers outside the mask are dropped.
// Both throw Error for more than 2^26 pixels.

// Floods `height`, low values first, from the markers through the mask.
Labels watershed(const Bytes& height, const Labels& markers, const Mask& mask);

// Floods a flat image and leaves a line, of label 0, where two floods meet.
Labels watershed_with_line(const Labels& markers, const Mask& mask);

}  // namespace cellcam::cells
