#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

namespace cellcam::training::augment {

// Noise by position: the number at a place is a hash of the place and of the image's seed, in 32-bit arithmetic that LibTorch's
// tensors know too, so that every device and every order of work gives the same bits.
struct NoiseKey {
  std::uint32_t low, high;
  explicit NoiseKey(std::uint64_t seed);
};

inline std::uint32_t noise_bits(std::uint32_t place, NoiseKey key) {
  // Two rounds of a 32-bit mixer (constants of Chris Wellons' lowbias32), each with half of the key.
  std::uint32_t x = place * 0x9E3779B9u + key.low;
  x ^= x >> 16, x *= 0x7FEB352Du, x ^= x >> 15, x *= 0x846CA68Bu, x ^= x >> 16;
  x += key.high;
  x ^= x >> 16, x *= 0x7FEB352Du, x ^= x >> 15, x *= 0x846CA68Bu, x ^= x >> 16;
  return x;
}

// Standard normal quantiles of variance 1/2: the sum of two of them, taken by two 12-bit parts of noise_bits, is standard normal.
// Small enough for the first cache. On the CPU, (4096) float32.
constexpr std::int64_t kQuantiles = 4096;
const at::Tensor& half_normals();

inline float normal_noise(std::uint32_t bits, const float* quantiles) {
  return quantiles[bits & 0xFFFu] + quantiles[bits >> 20];
}

// The same by tensor operations: (seeds, count) float32 on the device, a row an image.
at::Tensor normal_fields(const std::vector<std::uint64_t>& seeds, std::int64_t count, at::Device device);
// (count) float32 in [0, 1), multiples of 2^-24.
at::Tensor uniform_field(std::uint64_t seed, std::int64_t count, at::Device device);

}  // namespace cellcam::training::augment
