// RegNetY (arXiv 2003.13678), with timm's names of weights.
#include <ATen/Functions.h>

#include <array>
#include <cmath>

#include "model/backbones/backbone.h"
#include "model/backbones/layers.h"
#include "model/cancellation.h"

namespace cellcam::model {
namespace {

struct RegNetConfig {
  std::array<int, 4> depths;
  std::array<std::int64_t, 4> widths;
  std::int64_t group_width;
  double squeeze;  // of the excitation, as a share of the block's input
};

class RegNetBlock : public ResidualBlock {
 public:
  RegNetBlock(const RegNetConfig& config, std::int64_t in, std::int64_t out, std::int64_t stride)
      : conv1_(*this, "conv1", {in, out, 1}),
        conv2_(*this, "conv2", {out, out, 3, stride, out / config.group_width}),
        se_(register_module("se", std::make_shared<SqueezeExcite>(out, std::lround(config.squeeze * static_cast<double>(in))))),
        conv3_(*this, "conv3", {out, out, 1}) {
    if (in != out || stride != 1) downsample_ = ConvNorm(*this, "downsample", {in, out, 1, stride});
  }

  Views forward(const Views& x) override {
    const Views y = se_->forward(conv2_(conv1_.for_conv(x, kRelu), kRelu));
    return conv3_(y, kRelu, downsample_ ? downsample_(x.again(), kNothing) : x.again());
  }
  torch::nn::BatchNorm2d last_norm() const override { return conv3_.norm(); }

 private:
  ConvNorm conv1_, conv2_;
  std::shared_ptr<SqueezeExcite> se_;
  ConvNorm conv3_, downsample_;
};

class RegNet : public Backbone {
 public:
  RegNet(const RegNetConfig& config, std::int64_t in_channels)
      : stem_(*this, "stem", {in_channels, 32, 3, 2}) {
    std::int64_t in = 32;
    for (std::size_t stage = 0; stage < config.depths.size(); ++stage) {
      auto layer = register_module(std::string("s").append(std::to_string(stage + 1)), std::make_shared<Part>());
      for (int i = 0; i < config.depths[stage]; ++i) {
        auto block = std::make_shared<RegNetBlock>(config, in, config.widths[stage], i == 0 ? 2 : 1);
        blocks_.push_back(layer->register_module(std::string("b").append(std::to_string(i + 1)), block));
        in = config.widths[stage];
      }
    }
  }

  Views forward(Views x) override {
    x = stem_(x, kRelu);
    for (const auto& block : blocks_) x = cancellation_point(block->forward(x));
    return x;
  }

 private:
  ConvNorm stem_;
  std::vector<std::shared_ptr<RegNetBlock>> blocks_;
};

// On CUDA wide groups are three times slower in NHWC.
const Registration regnety_064({"regnety_064", 1296, 32, /*channels_last_cpu=*/true, /*channels_last_cuda=*/false,
                                "stem.conv.weight", "timm/regnety_064.ra3_in1k", [](std::int64_t in_channels) {
                                  const RegNetConfig config{{2, 7, 14, 2}, {144, 288, 576, 1296}, 72, 0.25};
                                  return std::make_shared<RegNet>(config, in_channels);
                                }});

}  // namespace
}  // namespace cellcam::model
