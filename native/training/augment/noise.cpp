#include "training/augment/noise.h"

#include <ATen/Functions.h>

#include "random.h"

namespace cellcam::training::augment {

namespace {

// x >> n of the unsigned number that an int32 tensor stands for.
at::Tensor shifted(const at::Tensor& x, std::int64_t n) {
  return x.bitwise_right_shift(n).bitwise_and_((std::int64_t{1} << (32 - n)) - 1);
}

void mix(at::Tensor& x) {
  x.bitwise_xor_(shifted(x, 16)).mul_(0x7FEB352D);
  x.bitwise_xor_(shifted(x, 15)).mul_(static_cast<std::int32_t>(0x846CA68Bu));
  x.bitwise_xor_(shifted(x, 16));
}

// noise_bits of places 0 .. count - 1 for each seed, (seeds, count) int32.
at::Tensor bit_fields(const std::vector<std::uint64_t>& seeds, std::int64_t count, at::Device device) {
  at::Tensor keys = at::empty({2, static_cast<std::int64_t>(seeds.size()), 1}, at::kInt);
  for (std::size_t i = 0; i < seeds.size(); ++i) {
    const NoiseKey key(seeds[i]);
    keys.data_ptr<std::int32_t>()[i] = static_cast<std::int32_t>(key.low);
    keys.data_ptr<std::int32_t>()[seeds.size() + i] = static_cast<std::int32_t>(key.high);
  }
  keys = keys.to(device, /*non_blocking=*/true);
  at::Tensor x = at::arange(count, at::TensorOptions(at::kInt).device(device)).mul_(static_cast<std::int32_t>(0x9E3779B9u));
  x = x.unsqueeze(0) + keys[0];
  mix(x);
  x.add_(keys[1]);
  mix(x);
  return x;
}

}  // namespace

NoiseKey::NoiseKey(std::uint64_t seed) {
  const std::uint64_t bits = Random(seed, "noise").next();
  low = static_cast<std::uint32_t>(bits);
  high = static_cast<std::uint32_t>(bits >> 32);
}

const at::Tensor& half_normals() {
  static const auto* table = new at::Tensor([] {  // kept to the end: threads may outlive static destructors
    const at::Tensor p = at::arange(kQuantiles, at::kDouble).add_(0.5).div_(static_cast<double>(kQuantiles));
    const at::Tensor z = at::special_ndtri(p);
    return z.div(z.square().mean().mul_(2).sqrt_()).to(at::kFloat);
  }());
  return *table;
}

at::Tensor normal_fields(const std::vector<std::uint64_t>& seeds, std::int64_t count, at::Device device) {
  const at::Tensor bits = bit_fields(seeds, count, device);
  const at::Tensor table = half_normals().to(device);
  const at::Tensor low = bits.bitwise_and(0xFFF).flatten(), high = shifted(bits, 20).flatten();
  return table.index_select(0, low).add_(table.index_select(0, high)).view_as(bits);
}

at::Tensor uniform_field(std::uint64_t seed, std::int64_t count, at::Device device) {
  return shifted(bit_fields({seed}, count, device)[0], 8).to(at::kFloat).mul_(0x1p-24);
}

}  // namespace cellcam::training::augment
