#pragma once
#include <array>
#include <cstdint>

#include "training/augment/operation.h"

namespace cellcam::training::augment {

enum class Level { none, flips, full };  // only the crop; flips and quarter turns besides; all that the original draws

struct Options {
  Level level = Level::full;
  // Beyond the original.
  std::array<double, 2> resized_crop{0, 0};  // range of the crop's share of the image's area instead of a plain crop; 0: off
  double channel_dropout = 0;                // chance that one channel becomes 0
  double mixup = 0, cutmix = 0;              // chance of either for an image; see mix.h
  double mix_alpha = 1;                      // of the Beta distribution of the shares
};

// The generator of one image of one epoch: `position` is its place in the epoch's order. So results depend neither on batch
// size nor on the number of loader threads nor on the kind of device.
std::uint64_t image_seed(std::uint64_t seed, std::int64_t epoch, std::int64_t position);

// The draw for an image of height x width cropped to crop x crop. Odds and ranges are those of the Python original.
// Throws Error ERR_INVALID_ARG for a crop that is larger than the image, or under 32 pixels (no room for the holes).
Recipe draw(std::uint64_t image_seed, std::int64_t height, std::int64_t width, std::array<std::int64_t, 2> crop,
            std::int64_t channels, const Options& options);

}  // namespace cellcam::training::augment
