#pragma once
#include <ATen/core/Tensor.h>

#include "model/fused/rows.h"

namespace cellcam::model::fused {

// 3x3 convolutions in groups of 4 and 8 channels, those of the first two stages of ResNeXt. Such a group fills half a vector or one, and pixels
// of many channels in NHWC share few sets of the cache: here pixels of 8 channels are brought together first.

// Whether this is such a convolution: x in NHWC, float32 on a CPU with AVX2 (and not AVX-512 if groups are of 8), one pixel of zeros around it.
// CELLCAM_GROUPED_CONV=0 turns it off.
bool groups_fit(const at::Tensor& x, const at::Tensor& weight, std::int64_t stride);

// The convolution of x (N, C, H, W) with weight (C, 4 or 8, 3, 3).
at::Tensor grouped_conv(const at::Tensor& x, const at::Tensor& weight);

// act(conv(x) + bias), without gradients.
at::Tensor grouped_conv_act(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, Slope slope);

}  // namespace cellcam::model::fused
