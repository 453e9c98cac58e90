#pragma once
#include <ATen/core/Tensor.h>

#include "model/fused/rows.h"
#include "model/views.h"

namespace cellcam::model::fused {

// Convolutions of images, which have few channels: what a row of the kernel sees of NHWC pixels lies together, and is multiplied as such.

// Whether this is such a convolution: NHWC, float32 on a CPU with AVX2 or AVX-512, at most kMostChannels input channels, output channels by 16, an odd
// kernel. CELLCAM_STEM_CONV=0 turns it off.
constexpr std::int64_t kMostChannels = 8;
bool stem_fits(const Views& x, const at::Tensor& weight, std::int64_t groups);

// The convolution of both views (N, C, H, W) with weight (K, C, k, k) and k / 2 pixels of zeros around them.
Views stem_conv(const Views& x, const at::Tensor& weight, std::int64_t stride);

// act(conv(x) + bias) without gradients; `slope` as in rows.h.
at::Tensor stem_conv_act(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, std::int64_t stride, Slope slope);

}  // namespace cellcam::model::fused
