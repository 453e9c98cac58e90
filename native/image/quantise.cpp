#include "image/quantise.h"

namespace cellcam::image {

std::int64_t quantise(const float* __restrict values, std::int64_t count, std::uint8_t* __restrict out) {
  std::int32_t outside = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float x = values[i];
    outside |= !(x >= 0.0f) | !(x <= 1.0f);
    out[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(255.0f * x));
  }
  if (outside == 0) return -1;
  std::int64_t place = 0;
  while (values[place] >= 0.0f && values[place] <= 1.0f) ++place;
  return place;
}

}  // namespace cellcam::image
