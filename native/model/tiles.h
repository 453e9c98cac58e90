#pragma once
#include <ATen/core/Tensor.h>

namespace cellcam::model {

// Cuts (B, C, H, W) into side x side pieces, piece-major: all images' piece 0 first, then piece 1 (row-major).
// Result (side * side * B, C, H / side, W / side). Throws Error ERR_INVALID_ARG unless side divides H and W.
at::Tensor cut_tiles(const at::Tensor& images, std::int64_t side = 2);

// The inverse for any piece size: (side * side * B, C, h, w) to (B, C, side * h, side * w).
at::Tensor merge_tiles(const at::Tensor& tiles, std::int64_t side = 2);

}  // namespace cellcam::model
