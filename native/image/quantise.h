#pragma once

#include <cstdint>

namespace cellcam::image {

/** floor(255·x) in float32 of `count` values x in [0, 1]. Returns -1, or the place of the first value outside [0, 1] (a NaN too). */
std::int64_t quantise(const float* values, std::int64_t count, std::uint8_t* out);

}  // namespace cellcam::image
