#pragma once
#include <ATen/core/Tensor.h>

namespace cellcam::model::fused {

// Weights (squeezed, channels, 1, 1) and (channels, squeezed, 1, 1) of a squeeze-and-excitation, and their biases.
struct Excitation {
  at::Tensor squeeze, squeeze_bias, expand, expand_bias;
};
Excitation detached(const Excitation& w);

inline void add_to(at::Tensor& sum, const at::Tensor& term) { sum = sum.defined() ? sum.add_(term) : term; }

// The small network of a squeeze-and-excitation with its own backward pass, in float32.
struct Excited {
  at::Tensor means, hidden, weights;  // (B, C), (B, squeezed), (B, C)

  Excited(const at::Tensor& image_means, const Excitation& w);
  Excited(at::Tensor image_means, at::Tensor hidden_in, at::Tensor weights_in);

  struct Gradient {
    at::Tensor means, squeeze, squeeze_bias, expand, expand_bias;
  };
  Gradient backward(const at::Tensor& of_weights, const at::Tensor& squeeze, const at::Tensor& expand) const;
  // dz: gradients of what the weights are the sigmoid of.
  Gradient of_logits(const at::Tensor& dz, const at::Tensor& squeeze, const at::Tensor& expand) const;
};

}  // namespace cellcam::model::fused
