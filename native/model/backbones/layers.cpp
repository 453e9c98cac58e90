#include "model/backbones/layers.h"

#include <ATen/core/grad_mode.h>

#include "model/switches.h"

namespace cellcam::model {

namespace {

torch::Tensor activate_(torch::Tensor x, fused::Slope slope) {
  if (slope == kNothing) return x;
  return slope == kRelu ? x.relu_() : at::leaky_relu_(x, slope);
}

bool folds(const torch::nn::BatchNorm2d& norm) {
  static const bool on = switched_on("CELLCAM_FOLD_NORM");
  return on && !norm->is_training() && !at::GradMode::is_enabled();
}

torch::nn::Module& part(torch::nn::Module& parent, const std::string& name) {
  return *parent.register_module(name, std::make_shared<Part>());
}

}  // namespace

SqueezeExcite::SqueezeExcite(std::int64_t channels, std::int64_t squeezed)
    : fc1_(torch::nn::Conv2dOptions(channels, squeezed, 1)), fc2_(torch::nn::Conv2dOptions(squeezed, channels, 1)) {
  register_module("fc1", fc1_);
  register_module("fc2", fc2_);
}

torch::Tensor SqueezeExcite::forward(const torch::Tensor& x) {
  if (fused::fits(x)) return fused::excite(x, weights());
  const torch::Tensor squeezed = fc1_(x.mean({2, 3}, /*keepdim=*/true)).relu_();
  return x * fc2_(squeezed).sigmoid();
}

ConvNorm::ConvNorm(torch::nn::Module& parent, const std::string& conv_name, const std::string& norm_name, const ConvShape& shape)
    : conv_(conv(shape)), norm_(shape.out), folded_(std::make_shared<FoldedConv>(shape)) {
  parent.register_module(conv_name, conv_);
  parent.register_module(norm_name, norm_);
}

ConvNorm::ConvNorm(torch::nn::Module& parent, const std::string& name, const ConvShape& shape)
    : ConvNorm(part(parent, name), "conv", "bn", shape) {}

torch::Tensor ConvNorm::operator()(const torch::Tensor& x, fused::Slope slope, const torch::Tensor& residual) {
  if (folds(norm_)) return (*folded_)(x, *conv_, *norm_, slope, residual);
  torch::Tensor y = conv_->forward(x);
  if (norm_->is_training() && fused::fits(y)) return fused::norm_act(y, *norm_, slope, residual);
  y = norm_->forward(y);
  return activate_(residual.defined() ? y.add_(residual) : y, slope);
}

torch::Tensor ConvNorm::excited(const torch::Tensor& x, SqueezeExcite& excite, const torch::Tensor& residual) {
  if (folds(norm_)) {
    torch::Tensor y = (*folded_)(x, *conv_, *norm_, kNothing, {});
    if (!fused::fits(y) || !fused::fits(residual)) return excite.forward(y).add_(residual).relu_();
    fused::scale_act_(y, fused::channel_weights(fused::image_means(y), excite.weights()), residual, kRelu);
    return y;
  }
  const torch::Tensor y = conv_->forward(x);
  if (norm_->is_training() && fused::fits(y)) return fused::norm_excite(y, *norm_, excite.weights(), residual);
  return excite.forward(norm_->forward(y)).add_(residual).relu_();
}

}  // namespace cellcam::model
