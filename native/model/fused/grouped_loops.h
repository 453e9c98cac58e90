#pragma once
#include <cstdint>

namespace cellcam::model::fused {

// Loops of 3x3 convolutions in groups of 4 or 8 channels over pixels that are brought together by blocks of kLanes channels, which are one vector
// and two groups or one: (block, row, column, lane). Weights of a block are (3, 3, group, kLanes): row, column, input channel of the group,
// output channel of the block.
constexpr std::int64_t kLanes = 8;

struct GroupedLoops {
  // Rows of output of one block, y = act(sum + bias); `bias` may be null, `slope` is as in rows.h. `x` is the pixel above and left of the first
  // output pixel, `x_row` floats lie between rows of x, `y_row` and `y_pixel` between those and the pixels of y.
  void (*convolve)(const float* x, std::int64_t x_row, const float* weight, const float* bias, float slope, std::int64_t rows,
                   std::int64_t width, float* y, std::int64_t y_row, std::int64_t y_pixel);

  // dw += the products of x, given likewise, and dy (rows, width, kLanes), over all pixels.
  void (*gradient)(const float* x, std::int64_t x_row, const float* dy, std::int64_t rows, std::int64_t width, float* dw);
};

// For groups of 4 or 8 channels on this CPU; null for others, and where it has no such vectors.
const GroupedLoops* grouped_loops(std::int64_t group);

}  // namespace cellcam::model::fused
