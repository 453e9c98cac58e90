#pragma once
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace cellcam {

// 64-bit FNV-1a of a name: tells the streams of one seed apart.
constexpr std::uint64_t hash_name(std::string_view name) {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

// splitmix64 (Steele, Lea, Flood 2014): cheap to start, so every image and every tensor can have a generator of its own.
class Random {
 public:
  explicit Random(std::uint64_t state) : state_(state) {}
  Random(std::uint64_t seed, std::string_view name) : state_(hash_name(name) ^ (seed * kStep)) {}

  std::uint64_t next() {
    std::uint64_t z = state_ += kStep;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // [0, 1)
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(uniform() * static_cast<double>(n)); }
  double normal() {  // Box-Muller; 1 - u is never 0
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

 private:
  static constexpr std::uint64_t kStep = 0x9E3779B97F4A7C15u;
  std::uint64_t state_;
};

}  // namespace cellcam
