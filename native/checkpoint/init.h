#pragma once
#include <torch/nn/module.h>

#include <cstdint>

namespace cellcam::checkpoint {

// Fills a model as timm starts it: convolutions Kaiming-normal (fan out; the 1x1 classifier fan in), norms 1 and 0, the last
// norm of a residual block 0. Every value depends only on the seed, the tensor's name and its place, so that the weights are
// the same on every device and whatever else the model holds.
void initialise(torch::nn::Module& model, std::uint64_t seed);

}  // namespace cellcam::checkpoint
