#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "training/augment/operation.h"

namespace cellcam::training::augment {

// Applies one recipe an image to (B, H, W, C) uint8, all results of one size: (B, h, w, C) uint8 on the same device. On the CPU
// each image goes through its whole recipe while it is in the cache; elsewhere a stage at a time goes over the whole batch.
at::Tensor apply(const at::Tensor& images, const std::vector<Recipe>& recipes);

// The two ways, for tensors on the CPU the same but for ties of rounding: at most 1 apart, in few places.
at::Tensor apply_on_host(const at::Tensor& images, const std::vector<Recipe>& recipes);
at::Tensor apply_by_tensors(const at::Tensor& images, const std::vector<Recipe>& recipes);

// x / 255 to (x / 255 - mean) / std, a channel: value * scale - shift.
class Normalisation {
 public:
  Normalisation(const at::Tensor& mean, const at::Tensor& std);  // (C) float32, on the device of the images

  // (B, H, W, C) uint8 to (B, C, H, W) float32, channels-last in memory.
  at::Tensor operator()(const at::Tensor& images) const;
  // The same for `pixels` pixels on the CPU.
  void on_host(const std::uint8_t* values, std::int64_t pixels, float* out) const;

  std::int64_t channels() const { return scale_.numel(); }

 private:
  at::Tensor scale_, shift_;
};

// Augmented and normalised, in one pass over the memory where that can be. `memory` keeps the result's memory from batch to
// batch on the CPU, as fresh memory costs more than the arithmetic; it is taken again once nobody else holds the last result.
at::Tensor prepare(const at::Tensor& images, const std::vector<Recipe>& recipes, const Normalisation& normalise,
                   at::Tensor& memory);
at::Tensor prepare_on_host(const at::Tensor& images, const std::vector<Recipe>& recipes, const Normalisation& normalise,
                           at::Tensor& memory);

}  // namespace cellcam::training::augment
