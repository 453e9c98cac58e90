#include "cells/dpn_unet.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>

#include <string>

#include "error.h"
#include "model/backbones/layers.h"
#include "model/cancellation.h"

namespace cellcam::cells {

namespace {

constexpr double kNormEpsilon = 0.001;

torch::nn::BatchNorm2d norm(std::int64_t channels) {
  return torch::nn::BatchNorm2d(torch::nn::BatchNorm2dOptions(channels).eps(kNormEpsilon));
}

// The two paths of a dual path block: one is added to, the other grows.
struct Paths {
  at::Tensor residual, dense;
};

at::Tensor joined(const Paths& p) { return p.dense.defined() ? at::cat({p.residual, p.dense}, 1) : p.residual; }

// Batch norm, ReLU, convolution.
class NormReluConv : public torch::nn::Module {
 public:
  NormReluConv(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride, std::int64_t groups)
      : bn_(norm(in)), conv_(model::conv({in, out, kernel, stride, groups})) {
    register_module("bn", bn_);
    register_module("conv", conv_);
  }
  at::Tensor forward(const at::Tensor& x) { return conv_(bn_(x).relu_()); }

 private:
  torch::nn::BatchNorm2d bn_;
  torch::nn::Conv2d conv_;
};

class DualPathBlock : public torch::nn::Module {
 public:
  // `projection`: the name of the first block's own 1x1, empty for all others.
  DualPathBlock(std::int64_t in, const DpnStage& stage, std::int64_t stride, std::int64_t groups, const std::string& projection)
      : residual_(stage.residual) {
    const auto part = [&](const std::string& name, std::int64_t from, std::int64_t to, std::int64_t kernel, std::int64_t step,
                          std::int64_t split) { return register_module(name, std::make_shared<NormReluConv>(from, to, kernel, step, split)); };
    if (!projection.empty()) projection_ = part(projection, in, stage.residual + 2 * stage.growth, 1, stride, 1);
    narrow_ = part("c1x1_a", in, stage.width, 1, 1, 1);
    grouped_ = part("c3x3_b", stage.width, stage.width, 3, stride, groups);
    widen_ = part("c1x1_c", stage.width, stage.residual + stage.growth, 1, 1, 1);
  }

  Paths forward(const Paths& in) {
    const at::Tensor x = joined(in);
    Paths shortcut = in;
    if (projection_) {
      const at::Tensor w = projection_->forward(x);
      shortcut = {w.narrow(1, 0, residual_), w.narrow(1, residual_, w.size(1) - residual_)};
    }
    const at::Tensor y = widen_->forward(grouped_->forward(narrow_->forward(x)));
    return {shortcut.residual + y.narrow(1, 0, residual_),
            at::cat({shortcut.dense, y.narrow(1, residual_, y.size(1) - residual_)}, 1)};
  }

 private:
  std::int64_t residual_;
  std::shared_ptr<NormReluConv> projection_, narrow_, grouped_, widen_;
};

// The end of the encoder: both paths joined, batch norm, ReLU.
class JoinNormRelu : public torch::nn::Module {
 public:
  explicit JoinNormRelu(std::int64_t channels) : bn_(norm(channels)) { register_module("bn", bn_); }
  at::Tensor forward(const Paths& in) { return bn_(joined(in)).relu_(); }

 private:
  torch::nn::BatchNorm2d bn_;
};

// What a pooling layer and a ReLU are in the published files: places in a list, without weights.
struct Nothing : torch::nn::Module {};

class Stem : public torch::nn::Module {
 public:
  explicit Stem(std::int64_t out)
      : conv_(torch::nn::Conv2dOptions(3, out, 7).stride(2).padding(3).bias(false)), bn_(norm(out)) {
    register_module("0", conv_);
    register_module("1", bn_);
  }
  at::Tensor forward(const at::Tensor& x) { return bn_(conv_(x)).relu_(); }

 private:
  torch::nn::Conv2d conv_;
  torch::nn::BatchNorm2d bn_;
};

// Blocks at one resolution; the first stage begins with a pooling, the last one ends with a norm.
class Stage : public torch::nn::Module {
 public:
  Stage(int number, std::int64_t in, const DpnStage& stage, std::int64_t groups) : pool_(number == 1) {
    int place = 0;
    if (pool_) register_module(std::to_string(place++), std::make_shared<Nothing>());
    for (int i = 0; i < stage.blocks; ++i) {
      const std::string projection = i > 0 ? "" : number == 1 ? "c1x1_w_s1" : "c1x1_w_s2";
      const std::int64_t stride = i == 0 && number > 1 ? 2 : 1;
      blocks_.push_back(register_module(std::to_string(place++),
                                        std::make_shared<DualPathBlock>(in, stage, stride, groups, projection)));
      in = stage.residual + (3 + i) * stage.growth;
    }
    out_ = in;
    if (number == 4) end_ = register_module(std::to_string(place), std::make_shared<JoinNormRelu>(out_));
  }

  std::int64_t out_channels() const { return out_; }

  Paths forward(Paths x) {
    if (pool_) x = {at::max_pool2d(x.residual, 3, 2, 1), {}};
    for (const auto& block : blocks_) {
      x = block->forward({model::cancellation_point(x.residual).whole, x.dense});
    }
    return end_ ? Paths{end_->forward(x), {}} : x;
  }

 private:
  bool pool_;
  std::int64_t out_ = 0;
  std::vector<std::shared_ptr<DualPathBlock>> blocks_;
  std::shared_ptr<JoinNormRelu> end_;
};

// A 3x3 convolution with bias, at `place` of the list that the published files keep it in as `list`; ReLU unless it is the last.
class Conv : public torch::nn::Module {
 public:
  Conv(const std::string& list, int place, std::int64_t in, std::int64_t out)
      : conv_(torch::nn::Conv2dOptions(in, out, 3).padding(1)) {
    auto holder = list.empty() ? nullptr : register_module(list, std::make_shared<Nothing>());
    (holder ? *holder : static_cast<torch::nn::Module&>(*this)).register_module(std::to_string(place), conv_);
  }
  at::Tensor forward(const at::Tensor& x) { return conv_(x); }

 private:
  torch::nn::Conv2d conv_;
};

at::Tensor twice_as_large(const at::Tensor& x) {
  return at::upsample_nearest2d(x, std::vector<std::int64_t>{2 * x.size(2), 2 * x.size(3)});
}

at::Tensor apply_conv(torch::nn::Module& conv, const at::Tensor& x) { return static_cast<Conv&>(conv).forward(x); }

bool fits(std::int64_t side) { return side > 0 && (side % 32 == 0 || side % 32 == 31); }

constexpr float kMean[] = {124.0f / 255, 117.0f / 255, 104.0f / 255}, kStd = 1 / (0.0167f * 255);

}  // namespace

DpnUnet::DpnUnet(const DpnConfig& config) {
  std::array<std::int64_t, 5> features{config.stem};
  torch::nn::ModuleList encoder;
  encoder->push_back(std::make_shared<Stem>(config.stem));
  for (int s = 1; s <= 4; ++s) {
    const auto stage = std::make_shared<Stage>(s, features[s - 1], config.stages[s - 1], config.groups);
    features[s] = stage->out_channels();
    encoder->push_back(stage);
  }
  for (int i = 0; i < 4; ++i) {
    bottlenecks_->push_back(std::make_shared<Conv>("seq", 0, 2 * features[3 - i], features[3 - i]));
    decoder_stages_->push_back(std::make_shared<Conv>("layer", 1, features[i + 1], features[i]));
  }
  encoder_stages_ = encoder;
  last_upsample_ = std::make_shared<Conv>("layer", 1, config.stem, config.stem);
  final_ = std::make_shared<Conv>("", 0, config.stem, 3);
  register_module("bottlenecks", bottlenecks_);
  register_module("decoder_stages", decoder_stages_);
  register_module("last_upsample", last_upsample_);
  register_module("final", final_);
  register_module("encoder_stages", encoder_stages_);
}

at::Tensor DpnUnet::forward(const at::Tensor& images) {
  if (!fits(images.size(2)) || !fits(images.size(3))) {
    throw Error("ERR_INVALID_ARG", "images of " + std::to_string(images.size(2)) + " x " + std::to_string(images.size(3)) +
                                       ": the network takes multiples of 32, or one less");
  }
  std::array<at::Tensor, 5> skips;
  Paths paths{encoder_stages_[0]->as<Stem>()->forward(images), {}};
  skips[0] = paths.residual;
  for (int s = 1; s <= 4; ++s) {
    paths = encoder_stages_[s]->as<Stage>()->forward(paths);
    skips[s] = joined(paths);
  }
  at::Tensor x = skips[4];
  for (int i = 0; i < 4; ++i) {
    const int d = 3 - i;  // the files number these two lists from opposite ends
    x = apply_conv(*decoder_stages_[d], twice_as_large(model::cancellation_point(x).whole)).relu_();
    x = apply_conv(*bottlenecks_[i], at::cat({x, skips[d]}, 1)).relu_();
  }
  x = apply_conv(*last_upsample_, twice_as_large(x)).relu_();
  return apply_conv(*final_, x);
}

at::Tensor DpnUnet::probabilities(const at::Tensor& images, model::Precision precision) {
  const model::CancellationScope scope(cancel_);
  const c10::InferenceMode inference;
  const at::Device device = last_upsample_->parameters().front().device();
  const model::Autocast autocast(device, precision);
  const at::Tensor mean = at::from_blob(const_cast<float*>(kMean), {1, 3, 1, 1}).to(device);
  const at::Tensor input = images.to(device).sub(mean).div_(kStd);
  return forward(input.contiguous(memory_format())).to(at::kFloat).softmax(1);
}

at::MemoryFormat DpnUnet::memory_format() { return at::MemoryFormat::ChannelsLast; }

void DpnUnet::move_to(at::Device device) {
  to(device);
  for (at::Tensor& p : parameters()) {
    if (p.dim() == 4) p.set_data(p.detach().contiguous(memory_format()));
  }
}

}  // namespace cellcam::cells
