#pragma once
#include "cells/grid.h"

namespace cellcam::cells {

enum class Neighbours { four, eight };

// Connected components of equal non-zero values, numbered from 1 in the row-major order of their first pixels.
Labels components(const Labels& image, Neighbours neighbours);
Labels components(const Mask& image, Neighbours neighbours);

// Pixels of each label; the index is the label, from 0 to the largest.
std::vector<std::int64_t> areas(const Labels& labels);

// Clears labels with fewer than `minimum` pixels, counted by value whether connected or not.
void remove_small_labels(Labels& labels, std::int64_t minimum);

// Clears components with fewer than `minimum` pixels.
void remove_small(Mask& mask, std::int64_t minimum, Neighbours neighbours);

// Sets 4-connected components of background with fewer than `maximum` pixels, also those that touch the edge.
void fill_small_holes(Mask& mask, std::int64_t maximum);

// Sets the background that is not 4-connected to the edge of the image.
void fill_holes(Mask& mask);

}  // namespace cellcam::cells
