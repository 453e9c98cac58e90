#include "training/augment/warp.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <utility>

#include "training/augment/noise.h"

namespace cellcam::training::augment {

namespace {

// The inverse of (x, y) -> (f0 x + f1 y + f2, f3 x + f4 y + f5).
Affine inverse(const Affine& f) {
  const double d = f[0] * f[4] - f[1] * f[3];
  const double a = f[4] / d, b = -f[1] / d, c = -f[3] / d, e = f[0] / d;
  return {a, b, -(a * f[2] + b * f[5]), c, e, -(c * f[2] + e * f[5])};
}

double radians(double degrees) { return degrees * std::numbers::pi / 180; }

Affine shift_scale_rotate(const Operation& o, double h, double w) {
  const double a = o.value(1) * std::cos(radians(o.value(0))), b = o.value(1) * std::sin(radians(o.value(0)));
  const double cx = w / 2, cy = h / 2;
  return {a, b, (1 - a) * cx - b * cy + o.value(2) * w, -b, a, b * cx + (1 - a) * cy + o.value(3) * h};
}

Affine shear(const Operation& o, double h, double w) {
  const double s = std::sin(radians(o.value(0))), c = std::cos(radians(o.value(0)));
  const double cx = (w - 1) / 2, cy = (h - 1) / 2;
  const double m[4] = {c - s * s, -s, s * c, c};
  return {m[0], m[1], cx - m[0] * cx - m[1] * cy, m[2], m[3], cy - m[2] * cx - m[3] * cy};
}

// The mean over a 3 x 3 matrix of the distances from the identity.
double distance_from_identity(const Affine& f) {
  constexpr Affine kSame{1, 0, 0, 0, 1, 0};
  double sum = 0;
  for (std::size_t i = 0; i < 6; ++i) sum += std::abs(f[i] - kSame[i]);
  return sum / 9;
}

// The affine map that takes three points around the centre to where the jitters move them; x and y of the centre are
// swapped for images that are not square, as in the original.
Affine elastic(const Operation& o, std::int64_t h, std::int64_t w) {
  const auto q = static_cast<double>(std::min(h, w) / 3), cx = static_cast<double>(h / 2), cy = static_cast<double>(w / 2);
  const double from[3][2] = {{cx + q, cy + q}, {cx + q, cy - q}, {cx - q, cy - q}};
  float to[3][2];
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t j = 0; j < 2; ++j) to[i][j] = static_cast<float>(from[i][j]) + static_cast<float>(o.value(3 + 2 * i + j));
  }
  Affine f{};
  for (std::size_t j = 0; j < 2; ++j) {  // the points differ in y only, then in x only
    const double per_y = (static_cast<double>(to[0][j]) - to[1][j]) / (2 * q), per_x = (static_cast<double>(to[1][j]) - to[2][j]) / (2 * q);
    f[3 * j] = per_x, f[3 * j + 1] = per_y, f[3 * j + 2] = to[0][j] - per_x * from[0][0] - per_y * from[0][1];
  }
  return f;
}

Affine resized_crop(const Operation& o) {
  const double sx = o.value(3) / o.value(4), sy = o.value(2) / o.value(4);
  return {sx, 0, o.value(1) + sx / 2 - 0.5, 0, sy, o.value(0) + sy / 2 - 0.5};
}

// Each segment of the axis gets evenly spaced coordinates, both ends included, so that neighbours repeat one.
std::vector<float> grid_axis(std::int64_t length, std::int64_t steps, const double* factors) {
  const std::int64_t step = length / steps;
  std::vector<float> map(static_cast<std::size_t>(length));
  double previous = 0;
  for (std::int64_t i = 0; i <= steps; ++i) {
    const std::int64_t start = i * step, end = std::min((i + 1) * step, length);
    const bool cut = (i + 1) * step > length;
    const double current = cut ? static_cast<double>(length) : previous + static_cast<double>(step) * factors[i];
    const std::int64_t count = end - start;
    for (std::int64_t j = 0; j < count; ++j) {
      const double part = count == 1 ? 0 : static_cast<double>(j) * ((current - previous) / static_cast<double>(count - 1));
      map[static_cast<std::size_t>(start + j)] = static_cast<float>(previous + part);
    }
    previous = current;
  }
  return map;
}

Sampling affine_sampling(const Affine& source) { return {Sampling::Kind::affine, source, {}, {}, 0}; }

}  // namespace

std::optional<Sampling> sampling_of(const Operation& o, std::int64_t height, std::int64_t width) {
  const auto h = static_cast<double>(height), w = static_cast<double>(width);
  switch (o.op) {
    case Op::RandomResizedCrop:
      return affine_sampling(resized_crop(o));
    case Op::ShiftScaleRotate:
      return affine_sampling(inverse(shift_scale_rotate(o, h, w)));
    case Op::ElasticTransform:
      return affine_sampling(inverse(elastic(o, height, width)));
    case Op::IAAAffine: {
      const Affine forward = shear(o, h, w);
      if (distance_from_identity(forward) <= 1e-4) return std::nullopt;
      return affine_sampling(inverse(forward));
    }
    case Op::GridDistortion: {
      const std::int64_t steps = o.whole(0);
      const double* factors = o.values.data() + 1;
      return Sampling{Sampling::Kind::axes, {}, grid_axis(width, steps, factors), grid_axis(height, steps, factors + steps + 1), 0};
    }
    case Op::OpticalDistortion:
      return Sampling{Sampling::Kind::radial, {}, {}, {}, o.value(0)};
    default:
      return std::nullopt;
  }
}

namespace {

// What the smoothing leaves of a cosine of `k` half waves.
double gain(std::int64_t k, std::int64_t length, double sigma) {
  const auto radius = static_cast<std::int64_t>(4 * sigma + 0.5);
  double sum = 0, total = 0;
  for (std::int64_t j = -radius; j <= radius; ++j) {
    const double weight = std::exp(-static_cast<double>(j * j) / (2 * sigma * sigma));
    total += weight;
    sum += weight * std::cos(std::numbers::pi * static_cast<double>(k * j) / static_cast<double>(length));
  }
  return sum / total;
}

// Cosines of which less is left are dropped: all of them together move a field by a thousandth of itself.
constexpr double kLeast = 2e-5;

}  // namespace

Smoothing::Smoothing(std::int64_t length, double sigma, at::Device device) {
  std::vector<double> found;
  // The gains ripple around zero, so only a run of small ones is the end.
  for (std::int64_t k = 0, lost = 0; k < length && lost < 3; ++k) {
    found.push_back(gain(k, length, sigma));
    lost = std::abs(found.back()) < kLeast ? lost + 1 : 0;
  }
  const auto rank = static_cast<std::int64_t>(found.size());
  const at::Tensor k = at::arange(rank, at::kDouble).unsqueeze(1), i = at::arange(length, at::kDouble).add_(0.5).unsqueeze(0);
  at::Tensor rows = (k * i * (std::numbers::pi / static_cast<double>(length))).cos_().mul_(std::sqrt(2.0 / static_cast<double>(length)));
  rows.select(0, 0).mul_(std::sqrt(0.5));
  cosines = rows.to(at::kFloat).to(device);
  gains = at::tensor(found, at::kFloat).to(device);
}

at::Tensor smoothed(const at::Tensor& field, const Smoothing& rows, const Smoothing& columns) {
  const at::Tensor waves = at::matmul(at::matmul(rows.cosines, field), columns.cosines.t());
  const at::Tensor left = waves * rows.gains.unsqueeze(1) * columns.gains;
  return at::matmul(rows.cosines.t(), at::matmul(left, columns.cosines));
}

at::Tensor displacements(const std::vector<const Operation*>& operations, std::int64_t height, std::int64_t width,
                         at::Device device) {
  std::vector<at::Tensor> fields;
  std::map<double, std::pair<Smoothing, Smoothing>> smoothings;  // by sigma
  for (const Operation* o : operations) {
    if (o->given.defined()) {
      fields.push_back(o->given.to(device));
      continue;
    }
    const double sigma = o->value(1);
    auto known = smoothings.find(sigma);
    if (known == smoothings.end()) {
      known = smoothings.emplace(sigma, std::pair{Smoothing(height, sigma, device), Smoothing(width, sigma, device)}).first;
    }
    const at::Tensor u = uniform_field(static_cast<std::uint64_t>(o->value(2)), 2 * height * width, device).view({2, height, width});
    fields.push_back(smoothed(u.mul(2).sub_(1), known->second.first, known->second.second).mul_(o->value(0)));
  }
  return at::stack(fields);
}

}  // namespace cellcam::training::augment
