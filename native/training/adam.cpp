#include "training/adam.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <unordered_map>

#include "error.h"
#include "model/switches.h"

namespace cellcam::training {

namespace {

bool lies_like(const at::Tensor& x, const at::Tensor& other) {
  for (std::int64_t d = 0; d < x.dim(); ++d) {
    if (x.size(d) > 1 && x.stride(d) != other.stride(d)) return false;
  }
  return true;
}

at::Tensor in_order_of(const at::Tensor& parameter, const at::Tensor& x) {
  return lies_like(x, parameter) ? x : at::empty_strided(parameter.sizes(), parameter.strides(), x.options()).copy_(x);
}

// LibTorch's fused Adam on the CPU takes all values as they lie in memory, whatever order each tensor has, and brings gradients in NHWC into NCHW
// before, in vain. Rows of values in the parameter's order leave it nothing to mistake.
bool as_rows(const at::Tensor& parameter) { return parameter.is_cpu() && parameter.is_non_overlapping_and_dense(); }
at::Tensor row(const at::Tensor& x) { return x.as_strided({x.numel()}, {1}); }

constexpr std::int64_t kLarge = std::int64_t{1} << 15;  // values of a parameter for a step of its own to pay

}  // namespace

class Adam::Early::Hook : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(Adam& adam, std::size_t i, const at::Tensor& learning_rate) : adam_(adam), i_(i), learning_rate_(learning_rate) {}
  void operator()(const at::Tensor&) override {
    const at::NoGradGuard no_grad;
    Group group{adam_.factor_of(adam_.names_[i_]), {}, {}, {}, {}, {}};
    adam_.add(i_, group);
    adam_.step(group, learning_rate_, std::nullopt);
    adam_.parameters_[i_].mutable_grad() = at::Tensor();
    adam_.early_[i_] = true;
  }

 private:
  Adam& adam_;
  std::size_t i_;
  at::Tensor learning_rate_;
};

Adam::Early::Early(Adam& adam, const at::Tensor& learning_rate) : adam_(adam) {
  static const bool on = model::switched_on("CELLCAM_EARLY_STEPS");
  for (std::size_t i = 0; on && i < adam.parameters_.size(); ++i) {
    const at::Tensor& p = adam.parameters_[i];
    if (!p.requires_grad() || p.numel() < kLarge || !as_rows(p)) continue;
    torch::autograd::impl::set_post_acc_grad_hooks(p, std::make_unique<Hook>(adam, i, learning_rate));
  }
}

Adam::Early::~Early() {
  for (const at::Tensor& p : adam_.parameters_) {
    if (torch::autograd::impl::post_acc_grad_hooks(p)) torch::autograd::impl::set_post_acc_grad_hooks(p, nullptr);
  }
}

Adam::Adam(checkpoint::NamedTensors parameters, const AdamOptions& options) : options_(options) {
  for (auto& [name, parameter] : parameters) {
    names_.push_back(name);
    exp_avg_.push_back(at::zeros_like(parameter.detach()));
    exp_avg_sq_.push_back(at::zeros_like(parameter.detach()));
    steps_.push_back(at::zeros({}, at::TensorOptions(at::kFloat).device(parameter.device())));
    parameters_.push_back(parameter);
  }
  early_.resize(parameters_.size());
}

void Adam::zero_grad() {
  for (at::Tensor& p : parameters_) p.mutable_grad() = at::Tensor();
  early_.assign(early_.size(), false);
}

at::Tensor Adam::gradient(std::size_t i) const {
  if (!parameters_[i].grad().defined()) throw Error("ERR_TRAINING", "no gradient reached " + names_[i]);
  return parameters_[i].grad();
}

std::vector<at::Tensor> Adam::gradients() const {
  std::vector<at::Tensor> gradients;
  gradients.reserve(parameters_.size());
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_[i].requires_grad()) gradients.push_back(gradient(i));
  }
  return gradients;
}

double Adam::factor_of(const std::string& name) const {
  for (const RateGroup& group : options_.groups) {
    if (name.rfind(group.prefix, 0) == 0) return group.factor;
  }
  return 1;
}

void Adam::add(std::size_t i, Group& group) {
  const at::Tensor& parameter = parameters_[i];
  if (as_rows(parameter)) {
    exp_avg_[i] = in_order_of(parameter, exp_avg_[i]);
    exp_avg_sq_[i] = in_order_of(parameter, exp_avg_sq_[i]);
    group.parameters.push_back(row(parameter));
    group.gradients.push_back(row(in_order_of(parameter, gradient(i))));
    group.exp_avg.push_back(row(exp_avg_[i]));
    group.exp_avg_sq.push_back(row(exp_avg_sq_[i]));
  } else {
    group.parameters.push_back(parameter);
    group.gradients.push_back(gradient(i));
    group.exp_avg.push_back(exp_avg_[i]);
    group.exp_avg_sq.push_back(exp_avg_sq_[i]);
  }
  group.steps.push_back(steps_[i]);
}

std::vector<Adam::Group> Adam::groups() {
  std::vector<Group> groups;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (!parameters_[i].requires_grad() || early_[i]) continue;
    const double factor = factor_of(names_[i]);
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.factor == factor; });
    if (group == groups.end()) group = groups.insert(groups.end(), Group{factor, {}, {}, {}, {}, {}});
    add(i, *group);
  }
  return groups;
}

void Adam::step(const Group& group, const at::Tensor& learning_rate, const std::optional<Scaled>& scaled) {
  std::optional<at::Tensor> scale, found_inf;
  if (scaled) scale = scaled->scale, found_inf = scaled->found_inf;
  if (group.steps.front().is_cpu()) {
    for (const at::Tensor& step : group.steps) ++*step.data_ptr<float>();
  } else {
    at::_foreach_add_(group.steps, 1);
  }
  at::_fused_adam_(group.parameters, group.gradients, group.exp_avg, group.exp_avg_sq, {}, group.steps,
                   group.factor == 1 ? learning_rate : learning_rate * group.factor, options_.beta1, options_.beta2, /*weight_decay=*/0,
                   options_.epsilon, /*amsgrad=*/false, /*maximize=*/false, scale, found_inf);
  // A step that was left out does not count.
  if (found_inf) at::_foreach_sub_(group.steps, std::vector<at::Tensor>(group.steps.size(), found_inf->squeeze()));
}

void Adam::step(const at::Tensor& learning_rate, const std::optional<Scaled>& scaled) {
  const at::NoGradGuard no_grad;
  for (const Group& group : groups()) step(group, learning_rate, scaled);
}

checkpoint::NamedTensors Adam::state() const {
  checkpoint::NamedTensors out;
  for (std::size_t i = 0; i < names_.size(); ++i) out.emplace_back("exp_avg." + names_[i], exp_avg_[i]);
  for (std::size_t i = 0; i < names_.size(); ++i) out.emplace_back("exp_avg_sq." + names_[i], exp_avg_sq_[i]);
  // One a parameter, as frozen ones stand still.
  if (!steps_.empty()) out.emplace_back("steps", at::stack(steps_));
  return out;
}

void Adam::load(const checkpoint::NamedTensors& state) {
  const at::NoGradGuard no_grad;
  const std::unordered_map<std::string, at::Tensor> given(state.begin(), state.end());
  for (const auto& [name, tensor] : this->state()) {
    const auto found = given.find(name);
    if (found == given.end() || found->second.sizes() != tensor.sizes()) {
      throw Error("ERR_WEIGHTS", "the optimiser's state does not fit the model: " + name);
    }
    at::Tensor(tensor).copy_(found->second);
  }
  for (std::size_t i = 0; i < steps_.size(); ++i) steps_[i].copy_(given.at("steps")[static_cast<std::int64_t>(i)]);
}

}  // namespace cellcam::training
