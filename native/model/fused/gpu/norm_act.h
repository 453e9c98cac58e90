#pragma once
#include <torch/nn/modules/batchnorm.h>

#include "model/fused/excited.h"
#include "model/fused/rows.h"

namespace cellcam::model::fused::gpu {

// As fused/norm_act.h does on the CPU: batch norm and what follows it in one sweep forward and two backward. One view of NHWC images of
// float32, float16 or bfloat16. CELLCAM_FUSED_NORM=0 turns it off.

bool fits(const at::Tensor& x);

// act(norm(x) + residual) in training mode. `residual` may be undefined.
at::Tensor norm_act(const at::Tensor& x, torch::nn::BatchNorm2dImpl& norm, Slope slope, const at::Tensor& residual);

// relu(n * excitation(mean of n over each image) + residual) with n = norm(x), in training mode.
at::Tensor norm_excite(const at::Tensor& x, torch::nn::BatchNorm2dImpl& norm, const Excitation& weights, const at::Tensor& residual);

// x = act((x + shift) * weights + residual), without gradients. shift (C) and weights (B, C) are float32; weights and residual may be undefined.
void shift_act_(at::Tensor& x, const at::Tensor& shift, const at::Tensor& weights, const at::Tensor& residual, Slope slope);

}  // namespace cellcam::model::fused::gpu
