#include "training/augment/mix.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>

#include "random.h"

namespace cellcam::training::augment {

namespace {

// Beta(a, a) by Johnk's rejection (1964).
double symmetric_beta(Random& random, double a) {
  for (;;) {
    const double x = std::pow(random.uniform(), 1 / a), y = std::pow(random.uniform(), 1 / a);
    if (x + y <= 1 && x + y > 0) return x / (x + y);
  }
}

// A rectangle of 1 - share of the area around a random point, cut at the border; the share is what is left then.
Mix rectangle(Random& random, double share, std::int64_t height, std::int64_t width) {
  const double side = std::sqrt(1 - share);
  const auto cut = [&](std::int64_t n) -> std::pair<std::int64_t, std::int64_t> {
    const double middle = random.uniform() * static_cast<double>(n), half = side * static_cast<double>(n) / 2;
    return {std::max<std::int64_t>(0, std::llround(middle - half)), std::min(n, static_cast<std::int64_t>(std::llround(middle + half)))};
  };
  const auto [y1, y2] = cut(height);
  const auto [x1, x2] = cut(width);
  return {1 - static_cast<double>((y2 - y1) * (x2 - x1)) / static_cast<double>(height * width), true, y1, x1, y2, x2};
}

// The partner's row in the batch, or -1.
std::int64_t partner(std::int64_t row, std::int64_t first, std::int64_t count) {
  const std::int64_t other = ((first + row) ^ 1) - first;
  return other >= 0 && other < count ? other : -1;
}

}  // namespace

Mix draw_mix(std::uint64_t image_seed, std::int64_t height, std::int64_t width, const Options& options) {
  Random random(image_seed, "mixing");
  const double u = random.uniform();
  if (u >= options.mixup + options.cutmix) return {};
  const double share = symmetric_beta(random, options.mix_alpha);
  return u < options.mixup ? Mix{share} : rectangle(random, share, height, width);
}

std::pair<at::Tensor, at::Tensor> mixed(const at::Tensor& images, const at::Tensor& targets, const std::vector<Mix>& mixes,
                                        std::int64_t first) {
  at::Tensor pixels = images.clone(), labels = targets.clone();
  const std::int64_t count = images.size(0);
  for (std::int64_t row = 0; row < count; ++row) {
    const Mix& mix = mixes[static_cast<std::size_t>(row)];
    const std::int64_t other = partner(row, first, count);
    if (other < 0 || mix.share >= 1) continue;
    labels.select(0, row).mul_(mix.share).add_(targets.select(0, other), 1 - mix.share);
    if (!mix.paste) {
      pixels.select(0, row).mul_(mix.share).add_(images.select(0, other), 1 - mix.share);
      continue;
    }
    const auto inside = [&](const at::Tensor& image) { return image.slice(1, mix.y1, mix.y2).slice(2, mix.x1, mix.x2); };
    inside(pixels.select(0, row)).copy_(inside(images.select(0, other)));
  }
  return {pixels, labels};
}

}  // namespace cellcam::training::augment
