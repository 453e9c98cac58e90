#include "training/augment.h"

#include <ATen/Functions.h>

#include "random.h"

namespace cellcam::training {

std::uint64_t image_seed(std::uint64_t seed, std::int64_t epoch, std::int64_t position) {
  const std::uint64_t of_epoch = Random(Random(seed, "augmentation").next() + static_cast<std::uint64_t>(epoch)).next();
  return Random(of_epoch + static_cast<std::uint64_t>(position)).next();
}

Geometry draw_geometry(std::uint64_t image_seed, std::int64_t height, std::int64_t width, std::int64_t crop) {
  Random random(image_seed);
  Geometry g;
  g.crop_y = random.below(height - crop);
  g.crop_x = random.below(width - crop);
  // Here the noises will be drawn.
  g.flip = random.uniform() < 0.5;
  g.quarter_turns = random.below(4);
  // Here distortions, blurs and tone curves will be drawn.
  return g;
}

namespace {

// Row-major source pixel of every output pixel, as an affine map of (y, x): start + y * step_y + x * step_x, (B, 3).
at::Tensor source_maps(const std::vector<Geometry>& geometry, std::int64_t width, std::int64_t crop) {
  const std::int64_t last = crop - 1;
  at::Tensor maps = at::empty({static_cast<std::int64_t>(geometry.size()), 3}, at::kLong);
  std::int64_t* p = maps.data_ptr<std::int64_t>();
  for (const Geometry& g : geometry) {
    // One quarter turn: out[y, x] = in[x, last - y]; turn the affine map (row0, row per y, row per x, ...) k times.
    std::int64_t row = 0, row_y = 1, row_x = 0, col = 0, col_y = 0, col_x = 1;
    for (std::int64_t k = 0; k < g.quarter_turns; ++k) {
      const std::int64_t r = row, ry = row_y, rx = row_x, c = col, cy = col_y, cx = col_x;
      row = r + rx * last, row_y = -rx, row_x = ry;
      col = c + cx * last, col_y = -cx, col_x = cy;
    }
    if (g.flip) col = last - col, col_y = -col_y, col_x = -col_x;
    *p++ = (g.crop_y + row) * width + g.crop_x + col;
    *p++ = row_y * width + col_y;
    *p++ = row_x * width + col_x;
  }
  return maps;
}

}  // namespace

at::Tensor apply_geometry(const at::Tensor& images, const std::vector<Geometry>& geometry, std::int64_t crop) {
  const std::int64_t b = images.size(0), h = images.size(1), w = images.size(2), c = images.size(3);
  const at::Tensor maps = source_maps(geometry, w, crop).to(images.device(), /*non_blocking=*/true);
  const at::Tensor line = at::arange(crop, maps.options());
  const at::Tensor first = at::arange(b, maps.options()) * (h * w) + maps.select(1, 0);
  const at::Tensor pixel = first.view({b, 1, 1}) + maps.select(1, 1).view({b, 1, 1}) * line.view({1, crop, 1}) +
                           maps.select(1, 2).view({b, 1, 1}) * line.view({1, 1, crop});
  return images.reshape({b * h * w, c}).index_select(0, pixel.flatten()).view({b, crop, crop, c});
}

at::Tensor normalise(const at::Tensor& images, const at::Tensor& mean, const at::Tensor& std) {
  const at::Tensor values = images.to(at::kFloat).mul_((255.0f * std).reciprocal()).sub_(mean / std);
  return values.permute({0, 3, 1, 2});
}

}  // namespace cellcam::training
