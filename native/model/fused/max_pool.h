#pragma once
#include <ATen/core/Tensor.h>

namespace cellcam::model::fused {

// torch::max_pool2d(x, 3, 2, 1) of NHWC images, which remembers a byte for each value instead of an index of 8, and only if there is to be a gradient,
// which is gathered instead of scattered. For x that fits (norm_act.h).
at::Tensor max_pool(const at::Tensor& x);

}  // namespace cellcam::model::fused
