#include "model/backbones/layers.h"

#include <ATen/core/grad_mode.h>

#include "model/fused/gpu/max_pool.h"
#include "model/fused/gpu/norm_act.h"
#include "model/fused/grouped_conv.h"
#include "model/fused/joint.h"
#include "model/fused/max_pool.h"
#include "model/fused/pointwise_conv.h"
#include "model/fused/stem_conv.h"
#include "model/fused/winograd.h"
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

using fused::gpu::Output;

// f of each view and what belongs to it, which may be undefined.
template <typename F>
Views each(const Views& x, const Views& other, F f) {
  const Output first = f(x.whole, other.whole), second = x.tiles.defined() ? f(x.tiles, other.tiles) : Output();
  Views out(first.y, second.y);
  out.whole_again = first.again;
  out.tiles_again = second.again;
  return out;
}

// The norm as LibTorch computes it. What its backward pass keeps of the running statistics has versions of its own: a view whose norm is
// fused moves them in the same step.
torch::Tensor unfused(torch::nn::BatchNorm2d& norm, const torch::Tensor& x) {
  if (!norm->is_training()) return norm->forward(x);
  const torch::Tensor &mean = norm->running_mean, &var = norm->running_var;
  const torch::Tensor y = at::batch_norm(x, norm->weight, norm->bias, mean.variable_data(), var.variable_data(), /*training=*/true,
                                         *norm->options.momentum(), norm->options.eps(), /*cudnn_enabled=*/true);
  norm->num_batches_tracked.add_(1);
  for (const torch::Tensor* t : {&mean, &var}) t->unsafeGetTensorImpl()->bump_version();
  return y;
}

torch::nn::Module& part(torch::nn::Module& parent, const std::string& name) {
  return *parent.register_module(name, std::make_shared<Part>());
}

}  // namespace

Views max_pool(const Views& x) {
  return x.map([](const torch::Tensor& view) {
    if (fused::fits(view)) return fused::max_pool(view);
    if (view.requires_grad() && fused::gpu::fits(view)) return fused::gpu::max_pool(view);
    return torch::max_pool2d(view, 3, 2, 1);
  });
}

SqueezeExcite::SqueezeExcite(std::int64_t channels, std::int64_t squeezed)
    : fc1_(torch::nn::Conv2dOptions(channels, squeezed, 1)), fc2_(torch::nn::Conv2dOptions(squeezed, channels, 1)) {
  register_module("fc1", fc1_);
  register_module("fc2", fc2_);
}

Views SqueezeExcite::forward(const Views& x) {
  if (fused::fits(x)) return fused::excite(x, weights());
  return x.map([&](const torch::Tensor& view) {
    const torch::Tensor squeezed = fc1_(view.mean({2, 3}, /*keepdim=*/true)).relu_();
    return view * fc2_(squeezed).sigmoid();
  });
}

ConvNorm::ConvNorm(torch::nn::Module& parent, const std::string& conv_name, const std::string& norm_name, const ConvShape& shape)
    : conv_(conv(shape)), norm_(shape.out), folded_(std::make_shared<FoldedConv>(shape)) {
  parent.register_module(conv_name, conv_);
  parent.register_module(norm_name, norm_);
}

ConvNorm::ConvNorm(torch::nn::Module& parent, const std::string& name, const ConvShape& shape)
    : ConvNorm(part(parent, name), "conv", "bn", shape) {}

Views ConvNorm::convolve(const fused::ConvInput& in) {
  const ConvShape& shape = folded_->shape();
  const Views& x = in.x;
  const bool pointwise = fused::pointwise_fits(x, conv_->weight, shape.groups);
  const bool grouped = fused::groups_fit(x, conv_->weight, shape.stride, shape.groups);
  if (in.norm != nullptr && !grouped && !(pointwise && shape.stride == 1)) return convolve(fused::norm_act(x, *in.norm, in.slope));
  if (pointwise) return fused::pointwise_conv(in, conv_->weight, shape.stride);
  if (grouped) return fused::grouped_conv(in, conv_->weight, shape.stride);
  if (shape.kernel == 1 && shape.stride == 1 && fused::joins(x)) return fused::joint_conv(x, conv_->weight);
  if (fused::stem_fits(x, conv_->weight, shape.groups)) return fused::stem_conv(x, conv_->weight, shape.stride);
  if (fused::winograd_fits(x, conv_->weight, shape.stride, shape.groups, /*weight_kept=*/false)) {
    return fused::winograd_conv(x, conv_->weight, shape.groups);
  }
  if (fused::joins_spatially(x, conv_->weight, shape.stride, shape.groups)) {
    return fused::joint_spatial_conv(x, conv_->weight, shape.stride, shape.padding());
  }
  return x.map([&](const torch::Tensor& view) { return conv_->forward(view); });
}

Views ConvNorm::operator()(const fused::ConvInput& x, fused::Slope slope, const Views& residual) {
  if (!folds(norm_)) return act(convolve(x), slope, residual);
  return each(x.x, residual, [&](const auto& view, const auto& added) -> Output { return {(*folded_)(view, *conv_, *norm_, slope, added), {}}; });
}

fused::ConvInput ConvNorm::for_conv(const fused::ConvInput& x, fused::Slope slope) {
  static const bool on = switched_on("CELLCAM_NORM_AS_READ");
  if (!on || folds(norm_)) return (*this)(x, slope);
  const Views y = convolve(x);
  if (norm_->is_training() && fused::fits(y)) return {y, *norm_, slope};
  return act(y, slope, {});
}

Views ConvNorm::act(const Views& y, fused::Slope slope, const Views& residual) {
  if (norm_->is_training() && fused::fits(y)) return fused::norm_act(y, *norm_, slope, residual);
  return each(y, residual, [&](const auto& view, const auto& added) -> Output {
    if (norm_->is_training() && fused::gpu::fits(view)) return fused::gpu::norm_act(view, *norm_, slope, added);
    const torch::Tensor n = unfused(norm_, view);
    return {activate_(added.defined() ? n.add_(added) : n, slope), {}};
  });
}

Views ConvNorm::excited(const fused::ConvInput& x, SqueezeExcite& excite, const Views& residual) {
  if (folds(norm_)) {
    return each(x.x, residual, [&](const auto& view, const auto& added) -> Output {
      if (fused::gpu::fits(added)) {
        auto [y, shift] = folded_->without_shift(view, *conv_, *norm_);
        const torch::Tensor means = y.mean({2, 3}, /*keepdim=*/false, at::kFloat).add_(shift);
        fused::gpu::shift_act_(y, shift, fused::channel_weights(means, excite.weights()), added, kRelu);
        return {y, {}};
      }
      torch::Tensor y = (*folded_)(view, *conv_, *norm_, kNothing, {});
      if (!fused::fits(y) || !fused::fits(added)) return {excite.forward(y).whole.add_(added).relu_(), {}};
      fused::scale_act_(y, fused::channel_weights(fused::image_means(y), excite.weights()), added, kRelu);
      return {y, {}};
    });
  }
  const Views y = convolve(x);
  if (norm_->is_training() && fused::fits(y) && fused::fits(residual)) return fused::norm_excite(y, *norm_, excite.weights(), residual);
  return each(y, residual, [&](const torch::Tensor& view, const torch::Tensor& added) -> Output {
    if (norm_->is_training() && fused::gpu::fits(view)) return fused::gpu::norm_excite(view, *norm_, excite.weights(), added);
    return {excite.forward(unfused(norm_, view)).whole.add(added).relu_(), {}};
  });
}

}  // namespace cellcam::model
