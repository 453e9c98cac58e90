#pragma once
#include <ATen/core/Tensor.h>

#include "model/fused/rows.h"
#include "model/views.h"

namespace cellcam::model::fused {

// 3x3 convolutions with stride 1 and one pixel of zeros around the input, by Winograd's minimal filtering (winograd_loops.h): a quarter of the
// multiplications.

// Whether these are such: NHWC, float32 on a CPU with AVX2 or AVX-512, channels of a group by 16, and enough pixels for what transforming the weight
// costs, which is kept where `weight_kept`. CELLCAM_WINOGRAD=0 turns it off.
bool winograd_fits(const Views& x, const at::Tensor& weight, std::int64_t stride, std::int64_t groups, bool weight_kept);

// The convolution of both views (N, C, H, W) with weight (K, C / groups, 3, 3).
Views winograd_conv(const Views& x, const at::Tensor& weight, std::int64_t groups);

// The weight as winograd_conv_act wants it.
at::Tensor winograd_weight(const at::Tensor& weight);

// act(conv(x) + bias + residual), without gradients. `residual` may be undefined; else the result lies in it.
at::Tensor winograd_conv_act(const at::Tensor& x, const at::Tensor& transformed, const at::Tensor& bias, std::int64_t groups,
                             Slope slope, const at::Tensor& residual);

}  // namespace cellcam::model::fused
