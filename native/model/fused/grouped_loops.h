#pragma once
#include <cstdint>

#include "model/fused/rows.h"

namespace cellcam::model::fused {

// Loops of 3x3 convolutions in groups of channels over pixels that are brought together by blocks of `lanes` channels, which are one vector: (block,
// row, column, lane). A block holds several groups, of which channel i of group g is in lane i * groups + g, or one, or a group takes several blocks.
constexpr std::int64_t kMostTaps = 9;
constexpr std::int64_t kChunk = 32;  // channels that are brought together at a time: two cache lines of a pixel, and whole groups

// Pixels that one reads to compute another: where they lie from the first of them on, for each of `blocks` blocks of a group, which are `block` floats
// apart. Weights come in the same order, (blocks, taps, input channel, lane).
struct Taps {
  std::int64_t row;  // floats between rows of what is read
  std::int64_t blocks, block;
  std::int64_t count, offset[kMostTaps];
};

struct GroupedLoops {
  std::int64_t lanes;
  // kChunk channels of pixels that begin `step` floats after each other, to blocks of which the pixels lie side by side; activated if `before` is not null.
  void (*gather)(const float* x, std::int64_t step, std::int64_t pixels, float* to, std::int64_t block, const Activation* before);
  // Rows of output of one block, y = act(sum + bias); `bias` may be null, `slope` is as in rows.h. `x` is the first pixel that the first output sees,
  // `y_row` and `y_pixel` floats lie between the rows and the pixels of y.
  void (*convolve)(const float* x, const Taps& taps, const float* weight, const float* bias, float slope, std::int64_t rows, std::int64_t width, float* y,
                   std::int64_t y_row, std::int64_t y_pixel);

  // dw += the products of x and dy (rows, width, lanes), over all pixels.
  void (*gradient)(const float* x, const Taps& taps, const float* dy, std::int64_t rows, std::int64_t width, float* dw);
};

// For groups of so many channels, and outputs that see every stride-th pixel and row, on this CPU; null for others, and where it has no such vectors.
const GroupedLoops* grouped_loops(std::int64_t group, std::int64_t stride);

}  // namespace cellcam::model::fused
