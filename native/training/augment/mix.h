#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "training/augment/sampler.h"

namespace cellcam::training::augment {

// One image's share of itself; the rest comes from its partner: blended everywhere (mixup, Zhang et al. 2018), or pasted as a
// rectangle (CutMix, Yun et al. 2019). Its targets are mixed by the same share.
struct Mix {
  double share = 1;
  bool paste = false;
  std::int64_t y1 = 0, x1 = 0, y2 = 0, x2 = 0;
};

Mix draw_mix(std::uint64_t image_seed, std::int64_t height, std::int64_t width, const Options& options);

// images (B, C, H, W) float32 and targets (B, K) float32 of the epoch's images from `first` on. Partners are the images at
// 2 j and 2 j + 1 of the epoch, where both are in the batch: with an even batch the result does not depend on its size.
std::pair<at::Tensor, at::Tensor> mixed(const at::Tensor& images, const at::Tensor& targets, const std::vector<Mix>& mixes,
                                        std::int64_t first);

}  // namespace cellcam::training::augment
