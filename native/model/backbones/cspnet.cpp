// CSPResNeXt (arXiv 1911.11929), with timm's names of weights.
#include <ATen/Functions.h>

#include <array>

#include "model/backbones/backbone.h"
#include "model/backbones/layers.h"
#include "model/cancellation.h"

namespace cellcam::model {
namespace {

constexpr std::int64_t kGroups = 32;

// In place: what is activated is always a batch norm's or a sum's own output.
torch::Tensor activate(torch::Tensor x) { return at::leaky_relu_(x, 0.01); }

class CspBottleneck : public ResidualBlock {
 public:
  explicit CspBottleneck(std::int64_t width)
      : conv1_(register_module("conv1", std::make_shared<ConvNorm>(width, width, 1))),
        conv2_(register_module("conv2", std::make_shared<ConvNorm>(width, width, 3, 1, kGroups))),
        conv3_(register_module("conv3", std::make_shared<ConvNorm>(width, width, 1))) {}

  torch::Tensor forward(const torch::Tensor& x) override {
    const torch::Tensor y = activate(conv2_->forward(activate(conv1_->forward(x))));
    return activate(conv3_->forward(y).add_(x));
  }
  torch::nn::BatchNorm2d last_norm() const override { return conv3_->norm(); }

 private:
  std::shared_ptr<ConvNorm> conv1_, conv2_, conv3_;
};

// One half of the channels passes by the blocks (cross stage partial).
class CspStage : public Layer {
 public:
  CspStage(std::int64_t in, std::int64_t out, std::int64_t stride, int depth) {
    if (stride > 1) down_ = register_module("conv_down", std::make_shared<ConvNorm>(in, in, 3, stride, kGroups));
    expand_ = register_module("conv_exp", std::make_shared<ConvNorm>(in, out, 1));
    auto blocks = register_module("blocks", std::make_shared<Blocks>());
    for (int i = 0; i < depth; ++i) {
      blocks_.push_back(blocks->register_module(std::to_string(i), std::make_shared<CspBottleneck>(out / 2)));
    }
    transition_b_ = register_module("conv_transition_b", std::make_shared<ConvNorm>(out / 2, out / 2, 1));
    transition_ = register_module("conv_transition", std::make_shared<ConvNorm>(out, out, 1));
  }

  torch::Tensor forward(const torch::Tensor& x) override {
    const torch::Tensor expanded = expand_->forward(down_ ? activate(down_->forward(x)) : x);
    const std::vector<torch::Tensor> halves = expanded.chunk(2, 1);
    torch::Tensor y = halves[1];
    for (const auto& block : blocks_) y = cancellation_point(block->forward(y));
    y = activate(transition_b_->forward(y));
    return activate(transition_->forward(at::cat({halves[0], y}, 1)));
  }

 private:
  struct Blocks : torch::nn::Module {};  // names its blocks, nothing else
  std::shared_ptr<ConvNorm> down_, expand_, transition_b_, transition_;
  std::vector<std::shared_ptr<CspBottleneck>> blocks_;
};

class CspResNeXt50 : public Backbone {
 public:
  explicit CspResNeXt50(std::int64_t in_channels) {
    auto stem = register_module("stem", std::make_shared<Part>());
    stem_ = stem->register_module("conv1", std::make_shared<ConvNorm>(in_channels, 64, 7, 2));
    auto stages = register_module("stages", std::make_shared<Part>());
    constexpr std::array<int, 4> depths{3, 3, 5, 2};
    std::int64_t in = 64;
    for (std::size_t i = 0; i < depths.size(); ++i) {
      const std::int64_t out = std::int64_t{256} << i;
      stages_.push_back(stages->register_module(std::to_string(i), std::make_shared<CspStage>(in, out, i == 0 ? 1 : 2, depths[i])));
      in = out;
    }
  }

  torch::Tensor forward(torch::Tensor x) override {
    x = torch::max_pool2d(activate(stem_->forward(x)), 3, 2, 1);
    for (const auto& stage : stages_) x = stage->forward(x);
    return x;
  }

 private:
  struct Part : torch::nn::Module {};  // names what is below it
  std::shared_ptr<ConvNorm> stem_;
  std::vector<std::shared_ptr<CspStage>> stages_;
};

const Registration cspresnext50({"cspresnext50", 2048, 32, /*channels_last_cpu=*/true, /*channels_last_cuda=*/true,
                                 "stem.conv1.conv.weight", "timm/cspresnext50.ra_in1k",
                                 [](std::int64_t in_channels) { return std::make_shared<CspResNeXt50>(in_channels); }});

}  // namespace
}  // namespace cellcam::model
