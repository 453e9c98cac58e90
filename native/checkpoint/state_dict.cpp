#include "checkpoint/state_dict.h"

#include <ATen/core/grad_mode.h>

#include <unordered_map>

#include "error.h"

namespace cellcam::checkpoint {

namespace {

void collect(const torch::nn::Module& module, const std::string& prefix, NamedTensors& out) {
  for (const auto& p : module.named_parameters(/*recurse=*/false)) out.emplace_back(prefix + p.key(), p.value());
  for (const auto& b : module.named_buffers(/*recurse=*/false)) out.emplace_back(prefix + b.key(), b.value());
  for (const auto& child : module.named_children()) collect(*child.value(), prefix + child.key() + ".", out);
}

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

void append(std::string& list, const std::string& item) { list += (list.empty() ? "" : ", ") + item; }

std::string join(const std::string& what, const std::string& list) {
  return list.empty() ? "" : "; " + what + ": " + list;
}

}  // namespace

NamedTensors state_dict(const torch::nn::Module& module) {
  NamedTensors out;
  collect(module, "", out);
  return out;
}

void load_state_dict(torch::nn::Module& module, const NamedTensors& values) {
  std::unordered_map<std::string, at::Tensor> given(values.begin(), values.end());
  const NamedTensors own = state_dict(module);
  std::string missing, misshaped, unexpected;
  for (const auto& [name, tensor] : own) {
    const auto found = given.find(name);
    if (found == given.end()) {
      append(missing, name);
    } else if (found->second.sizes() != tensor.sizes()) {
      append(misshaped, name + " " + shape_text(found->second.sizes()) + " instead of " + shape_text(tensor.sizes()));
    }
  }
  std::unordered_map<std::string, at::Tensor> wanted(own.begin(), own.end());
  for (const auto& [name, tensor] : values) {
    if (!wanted.count(name)) append(unexpected, name);
  }
  const std::string wrong = join("missing", missing) + join("unexpected", unexpected) + join("mis-shaped", misshaped);
  if (!wrong.empty()) throw Error("ERR_WEIGHTS", "the weights do not fit the model" + wrong);
  at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : own) at::Tensor(tensor).copy_(given.at(name));
}

}  // namespace cellcam::checkpoint
