#pragma once
#include "model/fused/conv_input.h"

namespace cellcam::model::fused {

// 3x3 convolutions in groups of a few channels, those of ResNeXt. A group of 4 or 8 fills half a vector or one, and pixels of many channels in NHWC
// share few sets of the cache: here pixels of 8 channels are brought together first.

// Whether this is such a convolution: in groups of 4 or 8, or of 16 or 32 where it sees every other pixel (else winograd.h is faster), x in NHWC,
// float32 on a CPU with AVX2, one pixel of zeros around it. CELLCAM_GROUPED_CONV=0 turns it off.
bool groups_fit(const Views& x, const at::Tensor& weight, std::int64_t stride, std::int64_t groups);

// The convolution of x (N, C, H, W) with weight (C, channels of a group, 3, 3).
Views grouped_conv(const ConvInput& x, const at::Tensor& weight, std::int64_t stride);

// act(conv(x) + bias), without gradients.
at::Tensor grouped_conv_act(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, std::int64_t stride, Slope slope);

}  // namespace cellcam::model::fused
