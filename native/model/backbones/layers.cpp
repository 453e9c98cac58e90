#include "model/backbones/layers.h"

namespace cellcam::model {

ConvNorm::ConvNorm(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride, std::int64_t groups)
    : conv_(model::conv(in, out, kernel, stride, groups)), bn_(out) {
  register_module("conv", conv_);
  register_module("bn", bn_);
}

SqueezeExcite::SqueezeExcite(std::int64_t channels, std::int64_t squeezed)
    : fc1_(torch::nn::Conv2dOptions(channels, squeezed, 1)), fc2_(torch::nn::Conv2dOptions(squeezed, channels, 1)) {
  register_module("fc1", fc1_);
  register_module("fc2", fc2_);
}

torch::Tensor SqueezeExcite::forward(const torch::Tensor& x) {
  const torch::Tensor squeezed = fc1_(x.mean({2, 3}, /*keepdim=*/true)).relu_();
  return x * fc2_(squeezed).sigmoid();
}

}  // namespace cellcam::model
