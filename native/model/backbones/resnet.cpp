// ResNet (arXiv 1512.03385), ResNeXt (1611.05431) and SE-ResNeXt (1709.01507), with timm's names of weights.
#include <ATen/Functions.h>
#include <torch/nn/modules/container/sequential.h>

#include <array>

#include "model/backbones/backbone.h"
#include "model/backbones/layers.h"
#include "model/cancellation.h"

namespace cellcam::model {
namespace {

struct ResNetConfig {
  std::array<int, 4> depths;
  bool bottleneck;
  std::int64_t groups = 1;      // of the 3x3 convolutions
  std::int64_t base_width = 64; // their width per group when the stage has 64 planes
  bool squeeze_excite = false;
};

class Block : public ResidualBlock {
 protected:
  void add_downsample(std::int64_t in, std::int64_t out, std::int64_t stride) {
    if (in == out && stride == 1) return;
    downsample_ = torch::nn::Sequential(conv(in, out, 1, stride), torch::nn::BatchNorm2d(out));
    register_module("downsample", downsample_);
  }
  torch::Tensor shortcut(const torch::Tensor& x) {
    return downsample_.is_empty() ? x : downsample_->forward(x);
  }

 private:
  torch::nn::Sequential downsample_{nullptr};
};

class BasicBlock : public Block {
 public:
  BasicBlock(std::int64_t in, std::int64_t planes, std::int64_t stride)
      : conv1_(conv(in, planes, 3, stride)), bn1_(planes), conv2_(conv(planes, planes, 3)), bn2_(planes) {
    register_module("conv1", conv1_);
    register_module("bn1", bn1_);
    register_module("conv2", conv2_);
    register_module("bn2", bn2_);
    add_downsample(in, planes, stride);
  }
  torch::Tensor forward(const torch::Tensor& x) override {
    const torch::Tensor y = bn2_(conv2_(bn1_(conv1_(x)).relu_()));
    return y.add_(shortcut(x)).relu_();
  }
  torch::nn::BatchNorm2d last_norm() const override { return bn2_; }

 private:
  torch::nn::Conv2d conv1_;
  torch::nn::BatchNorm2d bn1_;
  torch::nn::Conv2d conv2_;
  torch::nn::BatchNorm2d bn2_;
};

class Bottleneck : public Block {
 public:
  Bottleneck(const ResNetConfig& config, std::int64_t in, std::int64_t planes, std::int64_t stride)
      : Bottleneck(config, in, planes * config.base_width / 64 * config.groups, planes * 4, stride) {}

  torch::Tensor forward(const torch::Tensor& x) override {
    torch::Tensor y = bn1_(conv1_(x)).relu_();
    y = bn2_(conv2_(y)).relu_();
    y = bn3_(conv3_(y));
    if (se_) y = se_->forward(y);
    return y.add_(shortcut(x)).relu_();
  }
  torch::nn::BatchNorm2d last_norm() const override { return bn3_; }

 private:
  Bottleneck(const ResNetConfig& config, std::int64_t in, std::int64_t width, std::int64_t out, std::int64_t stride)
      : conv1_(conv(in, width, 1)),
        bn1_(width),
        conv2_(conv(width, width, 3, stride, config.groups)),
        bn2_(width),
        conv3_(conv(width, out, 1)),
        bn3_(out) {
    register_module("conv1", conv1_);
    register_module("bn1", bn1_);
    register_module("conv2", conv2_);
    register_module("bn2", bn2_);
    register_module("conv3", conv3_);
    register_module("bn3", bn3_);
    if (config.squeeze_excite) se_ = register_module("se", std::make_shared<SqueezeExcite>(out, out / 16));
    add_downsample(in, out, stride);
  }

  torch::nn::Conv2d conv1_;
  torch::nn::BatchNorm2d bn1_;
  torch::nn::Conv2d conv2_;
  torch::nn::BatchNorm2d bn2_;
  torch::nn::Conv2d conv3_;
  torch::nn::BatchNorm2d bn3_;
  std::shared_ptr<SqueezeExcite> se_;
};

class ResNet : public Backbone {
 public:
  ResNet(const ResNetConfig& config, std::int64_t in_channels) : stem_(conv(in_channels, 64, 7, 2)), bn_(64) {
    register_module("conv1", stem_);
    register_module("bn1", bn_);
    std::int64_t in = 64;
    for (std::size_t stage = 0; stage < config.depths.size(); ++stage) in = add_stage(config, stage, in);
  }

  torch::Tensor forward(torch::Tensor x) override {
    x = bn_(stem_(x)).relu_();
    x = torch::max_pool2d(x, 3, 2, 1);
    for (const auto& block : blocks_) x = cancellation_point(block->forward(x));
    return x;
  }

 private:
  std::int64_t add_stage(const ResNetConfig& config, std::size_t stage, std::int64_t in) {
    const std::int64_t planes = std::int64_t{64} << stage;
    auto layer = std::make_shared<Stage>();
    for (int i = 0; i < config.depths[stage]; ++i) {
      const std::int64_t stride = i == 0 && stage > 0 ? 2 : 1;
      std::shared_ptr<Block> block;
      if (config.bottleneck) {
        block = std::make_shared<Bottleneck>(config, in, planes, stride);
      } else {
        block = std::make_shared<BasicBlock>(in, planes, stride);
      }
      in = config.bottleneck ? planes * 4 : planes;
      blocks_.push_back(layer->register_module(std::to_string(i), block));
    }
    register_module("layer" + std::to_string(stage + 1), layer);
    return in;
  }

  struct Stage : torch::nn::Module {};  // names its blocks, nothing else
  torch::nn::Conv2d stem_;
  torch::nn::BatchNorm2d bn_;
  std::vector<std::shared_ptr<Block>> blocks_;
};

BackboneInfo resnet(const std::string& name, const std::string& pretrained, const ResNetConfig& config) {
  const std::int64_t out = config.bottleneck ? 2048 : 512;
  return {name, out, 32, /*channels_last_cpu=*/true, /*channels_last_cuda=*/true, "conv1.weight", pretrained,
          [config](std::int64_t in_channels) { return std::make_shared<ResNet>(config, in_channels); }};
}

const Registration resnet18(resnet("resnet18", "timm/resnet18.a1_in1k", {{2, 2, 2, 2}, false}));
const Registration seresnext50(resnet("seresnext50_32x4d", "timm/seresnext50_32x4d.racm_in1k",
                                      {{3, 4, 6, 3}, true, 32, 4, true}));
const Registration seresnext101(resnet("gluon_seresnext101_32x4d", "timm/seresnext101_32x4d.gluon_in1k",
                                       {{3, 4, 23, 3}, true, 32, 4, true}));

}  // namespace
}  // namespace cellcam::model
