// The noises of one image on the CPU.
#include <algorithm>
#include <cmath>

#include "training/augment/host_image.h"
#include "training/augment/noise.h"

namespace cellcam::training::augment {

namespace {

constexpr std::int64_t kBlock = 1024;  // numbers that are drawn before they are used

// Normal noise at the places from `first` on.
CELLCAM_WIDEN void draw_noise(float* noise, std::int64_t first, std::int64_t count, NoiseKey key, float sigma, const float* quantiles) {
  std::uint32_t bits[kBlock];
  for (std::int64_t i = 0; i < count; ++i) bits[i] = noise_bits(static_cast<std::uint32_t>(first + i), key);
  for (std::int64_t i = 0; i < count; ++i) noise[i] = normal_noise(bits[i], quantiles) * sigma;
}

// Truncates, as the original does.
CELLCAM_WIDEN void add_to_values(std::uint8_t* v, const float* noise, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float sum = static_cast<float>(v[i]) + noise[i], low = sum > 0.0f ? sum : 0.0f;
    v[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(low < 255.0f ? low : 255.0f));
  }
}

// One number a pixel, rounded, so that the sum needs no rounding.
CELLCAM_WIDEN void add_to_pixels(std::uint8_t* v, const float* noise, std::int64_t count, std::int64_t channels) {
  float repeated[4 * kBlock];
  const std::int64_t at_once = std::min<std::int64_t>(channels, 4);
  for (std::int64_t i = 0; i < count; ++i) {
    const float whole = (noise[i] + kRound) - kRound;
    for (std::int64_t c = 0; c < at_once; ++c) repeated[i * at_once + c] = whole;
  }
  if (channels <= 4) return add_to_values(v, repeated, count * channels);
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t c = 0; c < channels; c += 4) add_to_values(v + i * channels + c, repeated + 4 * i, std::min<std::int64_t>(4, channels - c));
  }
}

// Calls add(first, count, noise) for blocks of the `places`, with what was given or drawn.
template <typename Add>
void with_noise(const Operation& o, std::int64_t places, double sigma, const Add& add) {
  float drawn[kBlock];
  const NoiseKey key(static_cast<std::uint64_t>(o.value(1)));
  for (std::int64_t first = 0; first < places; first += kBlock) {
    const std::int64_t count = std::min(kBlock, places - first);
    if (!o.given.defined()) draw_noise(drawn, first, count, key, static_cast<float>(sigma), half_normals().data_ptr<float>());
    add(first, count, o.given.defined() ? o.given.data_ptr<float>() + first : drawn);
  }
}

}  // namespace

void gauss_noise(const Operation& o, Image& image) {
  with_noise(o, static_cast<std::int64_t>(image.pixels.size()), std::sqrt(o.value(0)),
             [&](std::int64_t first, std::int64_t count, const float* noise) { add_to_values(image.pixels.data() + first, noise, count); });
}

void shared_noise(const Operation& o, Image& image) {
  with_noise(o, image.height * image.width, o.value(0), [&](std::int64_t first, std::int64_t count, const float* noise) {
    add_to_pixels(image.pixels.data() + first * image.channels, noise, count, image.channels);
  });
}

}  // namespace cellcam::training::augment
