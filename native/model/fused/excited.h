#pragma once
#include <ATen/Functions.h>

namespace cellcam::model::fused {

// Weights (squeezed, channels, 1, 1) and (channels, squeezed, 1, 1) of a squeeze-and-excitation, and their biases.
struct Excitation {
  at::Tensor squeeze, squeeze_bias, expand, expand_bias;
};

inline void add_to(at::Tensor& sum, const at::Tensor& term) { sum = sum.defined() ? sum.add_(term) : term; }

// The small network of a squeeze-and-excitation with its own backward pass, in float32.
struct Excited {
  at::Tensor means, hidden, weights;  // (B, C), (B, squeezed), (B, C)

  Excited(const at::Tensor& image_means, const Excitation& w)
      : means(image_means),
        hidden(at::_addmm_activation(w.squeeze_bias, means, w.squeeze.flatten(1).t())),  // relu
        weights(at::addmm(w.expand_bias, hidden, w.expand.flatten(1).t()).sigmoid_()) {}
  Excited(at::Tensor image_means, at::Tensor hidden_in, at::Tensor weights_in)
      : means(std::move(image_means)), hidden(std::move(hidden_in)), weights(std::move(weights_in)) {}

  struct Gradient {
    at::Tensor means, squeeze, squeeze_bias, expand, expand_bias;
  };
  Gradient backward(const at::Tensor& of_weights, const at::Tensor& squeeze, const at::Tensor& expand) const {
    return of_logits(of_weights * weights * (1 - weights), squeeze, expand);
  }
  // dz: gradients of what the weights are the sigmoid of.
  Gradient of_logits(const at::Tensor& dz, const at::Tensor& squeeze, const at::Tensor& expand) const {
    const at::Tensor dh = at::threshold_backward(at::mm(dz, expand.flatten(1)), hidden, 0);
    return {at::mm(dh, squeeze.flatten(1)), at::mm(dh.t(), means).view_as(squeeze), dh.sum(0),
            at::mm(dz.t(), hidden).view_as(expand), dz.sum(0)};
  }
};

inline Excitation detached(const Excitation& w) {
  return {w.squeeze.detach(), w.squeeze_bias.detach(), w.expand.detach(), w.expand_bias.detach()};
}

}  // namespace cellcam::model::fused
