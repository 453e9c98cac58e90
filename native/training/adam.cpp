#include "training/adam.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

#include <unordered_map>

#include "error.h"

namespace cellcam::training {

Adam::Adam(checkpoint::NamedTensors parameters, const AdamOptions& options) : options_(options) {
  for (auto& [name, parameter] : parameters) {
    names_.push_back(name);
    exp_avg_.push_back(at::zeros_like(parameter.detach()));
    exp_avg_sq_.push_back(at::zeros_like(parameter.detach()));
    steps_.push_back(at::zeros({}, at::TensorOptions(at::kFloat).device(parameter.device())));
    parameters_.push_back(parameter);
  }
}

void Adam::zero_grad() {
  for (at::Tensor& p : parameters_) p.mutable_grad() = at::Tensor();
}

std::vector<at::Tensor> Adam::gradients() const {
  std::vector<at::Tensor> gradients;
  gradients.reserve(parameters_.size());
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (!parameters_[i].grad().defined()) throw Error("ERR_TRAINING", "no gradient reached " + names_[i]);
    gradients.push_back(parameters_[i].grad());
  }
  return gradients;
}

void Adam::step(double learning_rate, const std::optional<Scaled>& scaled) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> grads = gradients();
  std::optional<at::Tensor> scale, found_inf;
  if (scaled) scale = scaled->scale, found_inf = scaled->found_inf;
  at::_foreach_add_(steps_, 1);
  at::_fused_adam_(parameters_, grads, exp_avg_, exp_avg_sq_, {}, steps_, learning_rate, options_.beta1, options_.beta2,
                   /*weight_decay=*/0, options_.epsilon, /*amsgrad=*/false, /*maximize=*/false, scale, found_inf);
  // A step that was left out does not count.
  if (found_inf) at::_foreach_sub_(steps_, std::vector<at::Tensor>(steps_.size(), found_inf->squeeze()));
}

checkpoint::NamedTensors Adam::state() const {
  checkpoint::NamedTensors out;
  for (std::size_t i = 0; i < names_.size(); ++i) out.emplace_back("exp_avg." + names_[i], exp_avg_[i]);
  for (std::size_t i = 0; i < names_.size(); ++i) out.emplace_back("exp_avg_sq." + names_[i], exp_avg_sq_[i]);
  if (!steps_.empty()) out.emplace_back("step", steps_.front());
  return out;
}

void Adam::load(const checkpoint::NamedTensors& state) {
  const at::NoGradGuard no_grad;
  const std::unordered_map<std::string, at::Tensor> given(state.begin(), state.end());
  for (auto& [name, tensor] : this->state()) {
    const auto found = given.find(name);
    if (found == given.end() || found->second.sizes() != tensor.sizes()) {
      throw Error("ERR_WEIGHTS", "the optimiser's state does not fit the model: " + name);
    }
    at::Tensor(tensor).copy_(found->second);
  }
  for (at::Tensor& step : steps_) step.copy_(given.at("step"));
}

}  // namespace cellcam::training
