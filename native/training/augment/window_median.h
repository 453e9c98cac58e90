#pragma once
#include <ATen/core/Tensor.h>

namespace cellcam::training::augment {

// The median of side x side pixels around each, by itself for every channel; images (n, H, W, C) uint8, their border repeated. One kernel
// where there is a launcher for it (model/fused/gpu), unless CELLCAM_FUSED_MEDIAN=0; else by tensor operations.
at::Tensor window_median(const at::Tensor& images, std::int64_t side);

}  // namespace cellcam::training::augment
