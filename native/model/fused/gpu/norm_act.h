#pragma once
#include <torch/nn/modules/batchnorm.h>

#include "model/fused/excited.h"
#include "model/fused/rows.h"

namespace cellcam::model::fused::gpu {

// As fused/norm_act.h does on the CPU: batch norm and what follows it in one sweep forward and two backward. One view of NHWC images of
// float32, float16 or bfloat16. CELLCAM_FUSED_NORM=0 turns it off.

bool fits(const at::Tensor& x);

// y, and y again for a second reader: the gradients of both come back by themselves and are added within a sweep. `again` may be undefined.
struct Output {
  at::Tensor y, again;
};

// act(norm(x) + residual) in training mode. `residual` may be undefined.
Output norm_act(const at::Tensor& x, torch::nn::BatchNorm2dImpl& norm, Slope slope, const at::Tensor& residual);

// relu(n * excitation(mean of n over each image) + residual) with n = norm(x), in training mode.
Output norm_excite(const at::Tensor& x, torch::nn::BatchNorm2dImpl& norm, const Excitation& weights, const at::Tensor& residual);

// x = act((x + shift) * weights + residual), without gradients. shift (C) and weights (B, C) are float32; weights and residual may be undefined.
void shift_act_(at::Tensor& x, const at::Tensor& shift, const at::Tensor& weights, const at::Tensor& residual, Slope slope);

}  // namespace cellcam::model::fused::gpu
