// ResNet (arXiv 1512.03385), ResNeXt (1611.05431) and SE-ResNeXt (1709.01507), with timm's names of weights.
#include <ATen/Functions.h>

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
    downsample_ = ConvNorm(*register_module("downsample", std::make_shared<Part>()), "0", "1", {in, out, 1, stride});
  }
  Views shortcut(const Views& x) { return downsample_ ? downsample_(x, kNothing) : x; }

 private:
  ConvNorm downsample_;
};

class BasicBlock : public Block {
 public:
  BasicBlock(std::int64_t in, std::int64_t planes, std::int64_t stride)
      : conv1_(*this, "conv1", "bn1", {in, planes, 3, stride}), conv2_(*this, "conv2", "bn2", {planes, planes, 3}) {
    add_downsample(in, planes, stride);
  }
  Views forward(const Views& x) override {
    const Views y = conv1_(x, kRelu);
    return conv2_(y, kRelu, shortcut(x.again()));
  }
  torch::nn::BatchNorm2d last_norm() const override { return conv2_.norm(); }

 private:
  ConvNorm conv1_, conv2_;
};

class Bottleneck : public Block {
 public:
  Bottleneck(const ResNetConfig& config, std::int64_t in, std::int64_t planes, std::int64_t stride)
      : Bottleneck(config, in, planes * config.base_width / 64 * config.groups, planes * 4, stride) {}

  Views forward(const Views& x) override {
    const fused::ConvInput y = conv2_.for_conv(conv1_.for_conv(x, kRelu), kRelu);
    return se_ ? conv3_.excited(y, *se_, shortcut(x.again())) : conv3_(y, kRelu, shortcut(x.again()));
  }
  torch::nn::BatchNorm2d last_norm() const override { return conv3_.norm(); }

 private:
  Bottleneck(const ResNetConfig& config, std::int64_t in, std::int64_t width, std::int64_t out, std::int64_t stride)
      : conv1_(*this, "conv1", "bn1", {in, width, 1}),
        conv2_(*this, "conv2", "bn2", {width, width, 3, stride, config.groups}),
        conv3_(*this, "conv3", "bn3", {width, out, 1}) {
    if (config.squeeze_excite) se_ = register_module("se", std::make_shared<SqueezeExcite>(out, out / 16));
    add_downsample(in, out, stride);
  }

  ConvNorm conv1_, conv2_, conv3_;
  std::shared_ptr<SqueezeExcite> se_;
};

class ResNet : public Backbone {
 public:
  ResNet(const ResNetConfig& config, std::int64_t in_channels) : stem_(*this, "conv1", "bn1", {in_channels, 64, 7, 2}) {
    std::int64_t in = 64;
    for (std::size_t stage = 0; stage < config.depths.size(); ++stage) in = add_stage(config, stage, in);
  }

  Views forward(Views x) override {
    x = max_pool(stem_(x, kRelu));
    for (const auto& block : blocks_) x = cancellation_point(block->forward(x));
    return x;
  }

 private:
  std::int64_t add_stage(const ResNetConfig& config, std::size_t stage, std::int64_t in) {
    const std::int64_t planes = std::int64_t{64} << stage;
    auto layer = std::make_shared<Part>();
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

  ConvNorm stem_;
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
