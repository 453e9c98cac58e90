#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace cellcam::training {

// What training does to one image before the network sees it. Drawn from a generator of the image's own, so that the result does
// not depend on batch size, number of loader threads or kind of device.
struct Geometry {
  std::int64_t crop_y = 0, crop_x = 0;
  bool flip = false;               // left-right, after the crop
  std::int64_t quarter_turns = 0;  // counter-clockwise, after the flip
};

// The generator of one image of one epoch: `position` is its place in the epoch's order.
std::uint64_t image_seed(std::uint64_t seed, std::int64_t epoch, std::int64_t position);

// The draw for an image of height x width cropped to crop x crop; the offset is floor((height - crop) * u), u in [0, 1).
Geometry draw_geometry(std::uint64_t image_seed, std::int64_t height, std::int64_t width, std::int64_t crop);

// images (B, H, W, C) uint8 on any device to (B, crop, crop, C) uint8 on the same: one gather for the whole batch.
at::Tensor apply_geometry(const at::Tensor& images, const std::vector<Geometry>& geometry, std::int64_t crop);

// (B, H, W, C) uint8 to (B, C, H, W) float32 (x / 255 - mean) / std, channels-last in memory; mean and std are (C) float32.
at::Tensor normalise(const at::Tensor& images, const at::Tensor& mean, const at::Tensor& std);

}  // namespace cellcam::training
