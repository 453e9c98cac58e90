#pragma once
#include <torch/nn/modules/batchnorm.h>

#include "model/fused/pixels.h"

namespace cellcam::model::fused {

// The norm as y = x * scale + shift, (channels), by the batch's statistics.
struct BatchNorm {
  at::Tensor statistics;  // (4, channels) float32: mean, 1 / sqrt(variance + eps), scale and shift, for the backward pass
  Factors scale, shift;
  std::vector<double> image_offset;  // (images, channels): each image's mean less the batch's

  // Takes the batch's statistics, which move the norm's own. `s` says what an image is.
  BatchNorm(const at::Tensor& x, const Shape& s, torch::nn::BatchNorm2dImpl& norm);
};

// A norm's gradient from the sums over all pixels of the gradient dn of its output and of dn (x - mean): dx = dn a + x b + c.
struct NormGradient {
  std::vector<double> a, b, c;
  at::Tensor weight, bias;

  NormGradient(const std::vector<double>& sum, const std::vector<double>& products, const at::Tensor& weight_in,
               const at::Tensor& statistics, double n);
  GradientFactors factors() const;
};

// act(norm(x)) from such statistics.
Activation activation_of(const at::Tensor& statistics, Slope slope);

// The gradients of act(norm(x)) with respect to the norm's weight and bias and, to dx, which may be dy, to x.
struct NormActGradient {
  at::Tensor weight, bias;
};
NormActGradient norm_act_gradient(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& statistics, Slope slope,
                                  const at::Tensor& dx);

}  // namespace cellcam::model::fused
