#pragma once
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>

#include <string>

#include "model/backbones/folded_conv.h"
#include "model/fused/conv_input.h"
#include "model/fused/norm_act.h"

namespace cellcam::model {

// A convolution without bias and with "same" padding for odd kernels.
inline torch::nn::Conv2d conv(const ConvShape& shape) {
  return torch::nn::Conv2d(torch::nn::Conv2dOptions(shape.in, shape.out, shape.kernel)
                               .stride(shape.stride)
                               .padding(shape.padding())
                               .groups(shape.groups)
                               .bias(false));
}

// A part of a backbone.
class Layer : public torch::nn::Module {
 public:
  virtual Views forward(const Views& x) = 0;
};

// A block whose output is added to its input. Starting the last norm at zero makes it begin as the identity (arXiv 1706.02677).
class ResidualBlock : public Layer {
 public:
  virtual torch::nn::BatchNorm2d last_norm() const = 0;
};

// Only names what is below it.
struct Part : torch::nn::Module {};

// What follows a norm.
constexpr fused::Slope kNothing = 1, kRelu = 0;

// The largest of 3 x 3 pixels, every other one.
Views max_pool(const Views& x);

// Squeeze-and-excitation (arXiv 1709.01507): channel weights from the spatial mean.
class SqueezeExcite : public Layer {
 public:
  SqueezeExcite(std::int64_t channels, std::int64_t squeezed);
  Views forward(const Views& x) override;
  fused::Excitation weights() const { return {fc1_->weight, fc1_->bias, fc2_->weight, fc2_->bias}; }

 private:
  torch::nn::Conv2d fc1_, fc2_;
};

// A convolution, its batch norm and an activation: what backbones are made of.
// In predictions the norm is folded into the convolution.
class ConvNorm {
 public:
  ConvNorm() = default;
  // Registers both in `parent` by these names.
  ConvNorm(torch::nn::Module& parent, const std::string& conv_name, const std::string& norm_name, const ConvShape& shape);
  // Registers a part `name` in `parent` that holds both as `conv` and `bn`.
  ConvNorm(torch::nn::Module& parent, const std::string& name, const ConvShape& shape);

  explicit operator bool() const { return !conv_.is_empty(); }

  // act(norm(conv(x)) + residual). `residual` may be undefined, and is used up where no gradients are wanted.
  Views operator()(const fused::ConvInput& x, fused::Slope slope, const Views& residual = {});

  // act(norm(conv(x))) for a convolution: in training that computes the norm as it reads, if it can, and nothing is written in between.
  // CELLCAM_NORM_AS_READ=0 turns it off.
  fused::ConvInput for_conv(const fused::ConvInput& x, fused::Slope slope);

  // relu(n * excitation(n) + residual) with n = norm(conv(x)); `residual` likewise.
  Views excited(const fused::ConvInput& x, SqueezeExcite& excite, const Views& residual);

  torch::nn::BatchNorm2d norm() const { return norm_; }

 private:
  Views convolve(const fused::ConvInput& x);
  Views act(const Views& y, fused::Slope slope, const Views& residual);

  torch::nn::Conv2d conv_{nullptr};
  torch::nn::BatchNorm2d norm_{nullptr};
  std::shared_ptr<FoldedConv> folded_;
};

}  // namespace cellcam::model
