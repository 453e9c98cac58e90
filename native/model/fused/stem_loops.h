#pragma once
#include <cstdint>

#include "model/fused/rows.h"

namespace cellcam::model::fused {

// Loops of convolutions of few channels over rows of NHWC pixels with what lies outside the image as zeros. What a row of the kernel sees lies together.
struct Windows {
  const float* first;  // of the first of some output pixels next to each other
  std::int64_t apart;  // floats between those of one and the next
  std::int64_t row;    // floats between rows of pixels
  std::int64_t rows, length;  // of the kernel, and floats of each
};

struct StemLoops {
  // kPanel channels of output pixels that begin `step` floats after each other, act(sum + bias), from weights (rows, length, kPanel). `bias` may be null.
  void (*convolve)(const Windows& windows, const float* weight, const float* bias, Slope slope, std::int64_t pixels, float* y, std::int64_t step);

  // sums (rows, length, kPanel) += the products of what is seen and dy (pixels, kPanel), over all pixels.
  void (*gradient)(const Windows& windows, const float* dy, std::int64_t pixels, float* sums);
};

// For this CPU; null where it has no such vectors.
const StemLoops* stem_loops();

}  // namespace cellcam::model::fused
