#pragma once
#include <cstdint>
#include <vector>

#include "training/augment/operation.h"

// Wider vectors where the processor has them, chosen when the program starts; the sums are the same.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define CELLCAM_WIDEN __attribute__((target_clones("avx2", "default")))
#else
#define CELLCAM_WIDEN
#endif

namespace cellcam::training::augment {

// One image on the CPU.
struct Image {
  std::vector<std::uint8_t> pixels;  // (height, width, channels)
  std::int64_t height = 0, width = 0, channels = 0;

  void reshape(std::int64_t h, std::int64_t w, std::int64_t c) {
    height = h, width = w, channels = c;
    pixels.resize(static_cast<std::size_t>(h * w * c));
  }
  std::uint8_t* row(std::int64_t y) { return pixels.data() + y * width * channels; }
  const std::uint8_t* row(std::int64_t y) const { return pixels.data() + y * width * channels; }
};

// Adding and taking off this rounds a float under 2^22 to an integer, halves to even.
constexpr float kRound = 12582912.0f;

// GaussNoise, a number for each value, and the noise that a pixel's channels share.
void gauss_noise(const Operation& operation, Image& image);
void shared_noise(const Operation& operation, Image& image);

// GaussianBlur, MotionBlur or MedianBlur; `padded` is memory to work in.
void blur_on_host(const Operation& operation, const Image& in, Image& padded, Image& out);

}  // namespace cellcam::training::augment
