#pragma once
#include "cells/grid.h"

namespace cellcam::cells {

using Plane = Grid<float>;

// Gaussian of `sigma` pixels, cut at four sigma, along both axes; beyond an edge the image goes on mirrored, the edge pixel repeated.
Plane smooth(const Plane& image, double sigma);

// Euclidean distance of every pixel to the nearest one that is 0 in the mask; a mask without any gives the image's diagonal.
// Felzenszwalb & Huttenlocher, Distance transforms of sampled functions, 2012.
Plane distance_transform(const Mask& mask);

// The `q` quantile, 0…1, of a copy of the values: the one at place q·(n − 1), rounded.
float quantile(std::vector<float> values, double q);

}  // namespace cellcam::cells
