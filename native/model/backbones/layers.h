#pragma once
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>

namespace cellcam::model {

// A convolution without bias and with "same" padding for odd kernels.
inline torch::nn::Conv2d conv(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride = 1,
                              std::int64_t groups = 1) {
  return torch::nn::Conv2d(
      torch::nn::Conv2dOptions(in, out, kernel).stride(stride).padding(kernel / 2).groups(groups).bias(false));
}

// A part of a backbone, from one tensor to one.
class Layer : public torch::nn::Module {
 public:
  virtual torch::Tensor forward(const torch::Tensor& x) = 0;
};

// A block whose output is added to its input. Starting the last norm at zero makes it begin as the identity (arXiv 1706.02677).
class ResidualBlock : public Layer {
 public:
  virtual torch::nn::BatchNorm2d last_norm() const = 0;
};

// A convolution and its batch norm, named `conv` and `bn`; the activation is its user's.
class ConvNorm : public Layer {
 public:
  ConvNorm(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride = 1, std::int64_t groups = 1);
  torch::Tensor forward(const torch::Tensor& x) override { return bn_(conv_(x)); }
  torch::nn::BatchNorm2d norm() const { return bn_; }

 private:
  torch::nn::Conv2d conv_;
  torch::nn::BatchNorm2d bn_;
};

// Squeeze-and-excitation (arXiv 1709.01507): channel weights from the spatial mean.
class SqueezeExcite : public Layer {
 public:
  SqueezeExcite(std::int64_t channels, std::int64_t squeezed);
  torch::Tensor forward(const torch::Tensor& x) override;

 private:
  torch::nn::Conv2d fc1_, fc2_;
};

}  // namespace cellcam::model
