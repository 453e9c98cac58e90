// CSPResNeXt (arXiv 1911.11929), with timm's names of weights.
#include <ATen/Functions.h>

#include <array>

#include "model/backbones/backbone.h"
#include "model/backbones/layers.h"
#include "model/cancellation.h"

namespace cellcam::model {
namespace {

constexpr std::int64_t kGroups = 32;

constexpr fused::Slope kLeaky = 0.01f;

class CspBottleneck : public ResidualBlock {
 public:
  explicit CspBottleneck(std::int64_t width)
      : conv1_(*this, "conv1", {width, width, 1}),
        conv2_(*this, "conv2", {width, width, 3, 1, kGroups}),
        conv3_(*this, "conv3", {width, width, 1}) {}

  Views forward(const Views& x) override {
    return conv3_(conv2_.for_conv(conv1_.for_conv(x, kLeaky), kLeaky), kLeaky, x.again());
  }
  torch::nn::BatchNorm2d last_norm() const override { return conv3_.norm(); }

 private:
  ConvNorm conv1_, conv2_, conv3_;
};

// One half of the channels passes by the blocks (cross stage partial).
class CspStage : public Layer {
 public:
  CspStage(std::int64_t in, std::int64_t out, std::int64_t stride, int depth) {
    if (stride > 1) down_ = ConvNorm(*this, "conv_down", {in, in, 3, stride, kGroups});
    expand_ = ConvNorm(*this, "conv_exp", {in, out, 1});
    auto blocks = register_module("blocks", std::make_shared<Part>());
    for (int i = 0; i < depth; ++i) {
      blocks_.push_back(blocks->register_module(std::to_string(i), std::make_shared<CspBottleneck>(out / 2)));
    }
    transition_b_ = ConvNorm(*this, "conv_transition_b", {out / 2, out / 2, 1});
    transition_ = ConvNorm(*this, "conv_transition", {out, out, 1});
  }

  Views forward(const Views& x) override {
    const Views expanded = expand_(down_ ? down_.for_conv(x, kLeaky) : fused::ConvInput(x), kNothing);
    const std::int64_t half = expanded.whole.size(1) / 2;
    const Views passing = expanded.map([&](const torch::Tensor& view) { return view.narrow(1, 0, half); });
    Views y = expanded.map([&](const torch::Tensor& view) { return view.narrow(1, half, half).contiguous(view.suggest_memory_format()); });
    for (const auto& block : blocks_) y = cancellation_point(block->forward(y));
    y = transition_b_(y, kLeaky);
    return transition_(Views(at::cat({passing.whole, y.whole}, 1), y.tiles.defined() ? at::cat({passing.tiles, y.tiles}, 1) : at::Tensor()), kLeaky);
  }

 private:
  ConvNorm down_, expand_, transition_b_, transition_;
  std::vector<std::shared_ptr<CspBottleneck>> blocks_;
};

class CspResNeXt50 : public Backbone {
 public:
  explicit CspResNeXt50(std::int64_t in_channels) {
    auto stem = register_module("stem", std::make_shared<Part>());
    stem_ = ConvNorm(*stem, "conv1", {in_channels, 64, 7, 2});
    auto stages = register_module("stages", std::make_shared<Part>());
    constexpr std::array<int, 4> depths{3, 3, 5, 2};
    std::int64_t in = 64;
    for (std::size_t i = 0; i < depths.size(); ++i) {
      const std::int64_t out = std::int64_t{256} << i;
      stages_.push_back(stages->register_module(std::to_string(i), std::make_shared<CspStage>(in, out, i == 0 ? 1 : 2, depths[i])));
      in = out;
    }
  }

  Views forward(Views x) override {
    x = max_pool(stem_(x, kLeaky));
    for (const auto& stage : stages_) x = stage->forward(x);
    return x;
  }

 private:
  ConvNorm stem_;
  std::vector<std::shared_ptr<CspStage>> stages_;
};

const Registration cspresnext50({"cspresnext50", 2048, 32, /*channels_last_cpu=*/true, /*channels_last_cuda=*/true,
                                 "stem.conv1.conv.weight", "timm/cspresnext50.ra_in1k",
                                 [](std::int64_t in_channels) { return std::make_shared<CspResNeXt50>(in_channels); }});

}  // namespace
}  // namespace cellcam::model
