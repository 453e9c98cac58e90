#pragma once
#include <ATen/core/Tensor.h>

#include "model/fused/conv_input.h"

namespace cellcam::model::fused {

// 1x1 convolutions by matrix products of our own (matrix_product.h): of both views at once, forward, for the input's and for the weight's
// gradient. Behind a pass with int16 (model/precision.h) the factors of both gradients are rounded.

// Whether these are such: NHWC, float32 on a CPU with AVX2 or AVX-512, channels by 16. CELLCAM_MATRIX_PRODUCT=0 turns it off.
bool pointwise_fits(const Views& x, const at::Tensor& weight, std::int64_t groups);

// The convolution of both views (N, C, H, W) with weight (K, C, 1, 1); with stride of pixels as they are.
Views pointwise_conv(const ConvInput& x, const at::Tensor& weight, std::int64_t stride);

// The weight as pointwise_conv_act wants it.
at::Tensor pointwise_weight(const at::Tensor& weight);

// act(conv(x) + bias + residual), without gradients. `residual` may be undefined; else the result lies in it.
at::Tensor pointwise_conv_act(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias, std::int64_t stride, Slope slope,
                              const at::Tensor& residual);

}  // namespace cellcam::model::fused
