#pragma once
#include <torch/nn/modules/batchnorm.h>

#include "model/fused/excited.h"
#include "model/fused/rows.h"
#include "model/views.h"

namespace cellcam::model::fused {

// Batch norm and what follows it in one sweep forward and two backward, where LibTorch takes one or two for each operation: the time of
// these goes into reading and writing. Statistics are summed in float64 over blocks of pixels. For float32 and bfloat16 tensors in NHWC
// on the CPU; CELLCAM_FUSED_NORM=0 turns it off.

// Whether the functions below take these tensors.
bool fits(const at::Tensor& x);
bool fits(const Views& x);

// act(norm(x) + residual) in training mode: each view's own statistics, which move the running ones. `residual` may be undefined; with it the
// gradients of a second reader (Views::again) are added within a sweep.
Views norm_act(const Views& x, torch::nn::BatchNorm2dImpl& norm, Slope slope, const Views& residual = {});

// relu(n * excitation(mean of n over each image) + residual) with n = norm(x), in training mode.
Views norm_excite(const Views& x, torch::nn::BatchNorm2dImpl& norm, const Excitation& weights, const Views& residual);

// x * excitation(mean of x over each image).
Views excite(const Views& x, const Excitation& weights);

// Without gradients: act(x * scale + shift + residual), scale and shift (B, C) float32; the result may lie in x.
void scale_act_(at::Tensor& x, const at::Tensor& scale, const at::Tensor& residual, Slope slope);
// (B, C) float32, the mean over each image.
at::Tensor image_means(const at::Tensor& x);
// (B, C) float32 channel weights of (B, C) means.
at::Tensor channel_weights(const at::Tensor& means, const Excitation& weights);

}  // namespace cellcam::model::fused
