#include "cells/smooth.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cells/mirror.h"

namespace cellcam::cells {

namespace {

// Weights from the centre outwards; together with their mirror images they sum to 1.
std::vector<float> half_kernel(double sigma) {
  const auto radius = static_cast<std::int64_t>(std::lround(4 * sigma));
  std::vector<double> half;
  double sum = 0;
  for (std::int64_t i = 0; i <= radius; ++i) {
    half.push_back(std::exp(-0.5 * static_cast<double>(i * i) / (sigma * sigma)));
    sum += half.back() * (i == 0 ? 1 : 2);
  }
  std::vector<float> out;
  for (const double w : half) out.push_back(static_cast<float>(w / sum));
  return out;
}

// The lower envelope of the parabolas (x − i)² + f(i), in place, for a line of n values `stride` apart.
class Envelope {
 public:
  explicit Envelope(std::int64_t longest) : heights_(longest), centres_(longest), bounds_(longest + 1) {}

  void transform(float* line, std::int64_t n, std::int64_t stride) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (std::int64_t i = 0; i < n; ++i) heights_[i] = line[i * stride];
    std::int64_t last = -1;
    for (std::int64_t i = 0; i < n; ++i) {
      if (heights_[i] == kInfinity) continue;
      float meet = -kInfinity;
      while (last >= 0 && (meet = crossing(centres_[last], i)) <= bounds_[last]) --last;
      centres_[++last] = i;
      bounds_[last] = last == 0 ? -kInfinity : meet;
    }
    if (last < 0) return;
    bounds_[last + 1] = kInfinity;
    for (std::int64_t i = 0, k = 0; i < n; ++i) {
      while (bounds_[k + 1] < static_cast<float>(i)) ++k;
      const auto d = static_cast<float>(i - centres_[k]);
      line[i * stride] = d * d + heights_[centres_[k]];
    }
  }

 private:
  // Where the parabola of b, which lies further right, comes below that of a.
  float crossing(std::int64_t a, std::int64_t b) const {
    const auto fa = static_cast<float>(a), fb = static_cast<float>(b);
    return ((heights_[b] + fb * fb) - (heights_[a] + fa * fa)) / (2 * fb - 2 * fa);
  }

  std::vector<float> heights_;
  std::vector<std::int64_t> centres_;
  std::vector<float> bounds_;
};

}  // namespace

Plane smooth(const Plane& image, double sigma) {
  const std::vector<float> half = half_kernel(sigma);
  const auto radius = static_cast<std::int64_t>(half.size()) - 1;
  const std::int64_t h = image.height, w = image.width;
  Plane rows(h, w), out(h, w);
  for (std::int64_t y = 0; y < h; ++y) {
    float* to = rows.row(y);
    for (std::int64_t x = 0; x < w; ++x) to[x] = half[0] * image.row(y)[x];
    for (std::int64_t d = 1; d <= radius; ++d) {
      const float *up = image.row(mirrored(y - d, h)), *down = image.row(mirrored(y + d, h)), weight = half[d];
      for (std::int64_t x = 0; x < w; ++x) to[x] += weight * (up[x] + down[x]);
    }
  }
  std::vector<float> line(static_cast<std::size_t>(w + 2 * radius));
  for (std::int64_t y = 0; y < h; ++y) {
    mirror_line(rows.row(y), w, radius, line.data());
    float* to = out.row(y);
    for (std::int64_t x = 0; x < w; ++x) to[x] = half[0] * line[x + radius];
    for (std::int64_t d = 1; d <= radius; ++d) {
      const float *left = line.data() + radius - d, *right = line.data() + radius + d, weight = half[d];
      for (std::int64_t x = 0; x < w; ++x) to[x] += weight * (left[x] + right[x]);
    }
  }
  return out;
}

Plane distance_transform(const Mask& mask) {
  const std::int64_t h = mask.height, w = mask.width;
  Plane out = map_grid<float>(mask, [](std::uint8_t v) { return v == 0 ? 0 : std::numeric_limits<float>::infinity(); });
  Envelope envelope(std::max(h, w));
  for (std::int64_t x = 0; x < w; ++x) envelope.transform(out.values.data() + x, h, w);
  for (std::int64_t y = 0; y < h; ++y) envelope.transform(out.row(y), w, 1);
  const auto diagonal = static_cast<float>(std::hypot(h, w));
  for (float& v : out.values) v = std::min(std::sqrt(v), diagonal);
  return out;
}

float quantile(std::vector<float> values, double q) {
  const auto at = values.begin() + std::lround(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

}  // namespace cellcam::cells
