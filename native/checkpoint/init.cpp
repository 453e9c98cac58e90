#include "checkpoint/init.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <string>

#include "checkpoint/state_dict.h"
#include "model/backbones/layers.h"
#include "random.h"

namespace cellcam::checkpoint {

namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// (out, in / groups, k, k): the classifier is scaled by what it reads, the others by what they write.
void fill_convolution(const std::string& name, at::Tensor weight, std::uint64_t seed) {
  const std::int64_t receptive = weight.size(2) * weight.size(3);
  const std::int64_t fan = ends_with(name, "mclassifier.weight") ? weight.size(1) * receptive : weight.size(0) * receptive;
  const double deviation = std::sqrt(2.0 / static_cast<double>(fan));
  at::Tensor values = at::empty(weight.sizes(), at::kFloat);
  Random random(seed, name);
  float* p = values.data_ptr<float>();
  for (std::int64_t i = 0; i < values.numel(); ++i) p[i] = static_cast<float>(random.normal() * deviation);
  weight.copy_(values);
}

}  // namespace

void initialise(torch::nn::Module& model, std::uint64_t seed) {
  at::NoGradGuard no_grad;
  for (auto& [name, tensor] : state_dict(model)) {
    at::Tensor value = tensor;
    if (value.dim() == 4) {
      fill_convolution(name, value, seed);
    } else if (ends_with(name, "running_var") || (ends_with(name, ".weight") && value.dim() == 1)) {
      value.fill_(1);
    } else {
      value.zero_();
    }
  }
  for (const auto& module : model.modules(/*include_self=*/false)) {
    auto* block = dynamic_cast<model::ResidualBlock*>(module.get());
    if (block != nullptr) block->last_norm()->weight.zero_();
  }
}

}  // namespace cellcam::checkpoint
