#pragma once
#include <ATen/core/Tensor.h>

#include <string>

namespace cellcam::tests {

// The generator of the reference cases: values of key and seed, row-major, in double.
at::Tensor uniforms(const std::string& key, std::uint64_t seed, at::IntArrayRef shape);            // [0, 1)
at::Tensor state_tensor(const std::string& key, std::uint64_t seed, const at::Tensor& like);       // a tensor of a state dict
at::Tensor input_images(at::IntArrayRef shape, std::uint64_t seed);                                // (N, 4, H, W), normalised

}  // namespace cellcam::tests
