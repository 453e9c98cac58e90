#include "generated.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <cmath>

#include "random.h"

namespace cellcam::tests {

namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

at::Tensor uniforms(const std::string& key, std::uint64_t seed, at::IntArrayRef shape) {
  at::Tensor values = at::empty(shape, at::kDouble);
  Random random(seed, key);
  double* p = values.data_ptr<double>();
  for (std::int64_t i = 0; i < values.numel(); ++i) p[i] = random.uniform();
  return values;
}

at::Tensor state_tensor(const std::string& key, std::uint64_t seed, const at::Tensor& like) {
  if (like.scalar_type() == at::kLong) return at::zeros_like(like);
  at::Tensor u = uniforms(key, seed, like.sizes());
  if (like.dim() >= 2) {
    u = (2 * u - 1) * std::sqrt(3.0 / (static_cast<double>(like.numel()) / static_cast<double>(like.size(0))));
  } else if (ends_with(key, ".running_mean") || ends_with(key, ".bias")) {
    u = 0.2 * (u - 0.5);
  } else {
    u = 0.5 + u;
  }
  return u.to(at::kFloat);
}

at::Tensor input_images(at::IntArrayRef shape, std::uint64_t seed) {
  const std::int64_t n = shape[0], c = shape[1], h = shape[2], w = shape[3];
  const at::Tensor gain = uniforms("input_gain", seed, {n, c, 8, 8});
  const at::Tensor rows = (at::arange(h) * 8).floor_divide(h), columns = (at::arange(w) * 8).floor_divide(w);
  const at::Tensor value = uniforms("input", seed, shape) * gain.index_select(2, rows).index_select(3, columns);
  const at::Tensor mean = at::tensor({0.485, 0.456, 0.406, 0.485}, at::kDouble).view({1, c, 1, 1});
  const at::Tensor std = at::tensor({0.229, 0.224, 0.225, 0.229}, at::kDouble).view({1, c, 1, 1});
  return ((value - mean) / std).to(at::kFloat);
}

}  // namespace cellcam::tests
