#pragma once
#include <array>
#include <cstdint>

namespace cellcam::cells {

// Otsu's threshold of an image of bytes, counted by value, with the values v taken as v/255; as scikit-image 0.26's threshold_otsu.
double otsu_threshold(const std::array<std::int64_t, 256>& counts);

}  // namespace cellcam::cells
