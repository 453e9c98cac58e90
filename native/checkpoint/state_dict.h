#pragma once
#include <torch/nn/module.h>

#include <string>
#include <utility>
#include <vector>

namespace cellcam::checkpoint {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Parameters and buffers in PyTorch's state_dict order: each module's own tensors in the order of registration, then its children's.
// The tensors share the module's storage.
NamedTensors state_dict(const torch::nn::Module& module);

// Copies `values` into the module. Strict: throws Error ERR_WEIGHTS that names every missing, unexpected or mis-shaped tensor,
// and then leaves the module as it was.
void load_state_dict(torch::nn::Module& module, const NamedTensors& values);

}  // namespace cellcam::checkpoint
