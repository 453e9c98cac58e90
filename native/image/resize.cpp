#include "image/resize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

namespace cellcam::image {
namespace {

// The loops below vectorise; on x86-64 a second version for AVX2 is chosen at load time. Not a wider set: AVX-512 implies
// fused multiply-add, whose other rounding would make results depend on the machine.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__gnu_linux__)
#define CELLCAM_WIDEN __attribute__((target_clones("avx2", "default")))
#define CELLCAM_INLINE inline __attribute__((always_inline))  // into the clones, or they would share one narrow copy
#else
#define CELLCAM_WIDEN
#define CELLCAM_INLINE inline
#endif

// Rows that go through the horizontal pass together, one a vector lane.
constexpr std::int64_t kLanes = 8;

/** Index mirrored about the edge pixels' centres: d c b | a b c d | c b a. */
std::int64_t mirror(std::int64_t i, std::int64_t n) {
  if (n == 1) return 0;
  const std::int64_t period = 2 * (n - 1);
  i = std::abs(i) % period;
  return i < n ? i : period - i;
}

/** One half of the symmetric Gaussian, weight of the centre first; only the centre if nothing is to be blurred. */
std::vector<double> gaussian(double sigma) {
  const auto radius = sigma > 0 ? static_cast<std::int64_t>(4 * sigma + 0.5) : 0;
  std::vector<double> half(radius + 1, 1.0);
  double sum = 1;
  for (std::int64_t i = 1; i <= radius; ++i) {
    half[i] = std::exp(-0.5 / (sigma * sigma) * static_cast<double>(i * i));
    sum += 2 * half[i];
  }
  for (double& weight : half) weight /= sum;
  return half;
}

/** How one axis of n pixels becomes N: the blur, which blurred pixels are needed at all, and the two that each output mixes. */
struct Axis {
  std::int64_t n;
  std::vector<double> kernel;
  std::vector<std::int64_t> needed;  // ascending pixel indices
  struct Sample {
    std::int64_t low, high;  // indices into needed
    double weight;           // of high
  };
  std::vector<Sample> samples;  // one an output pixel

  std::int64_t radius() const { return static_cast<std::int64_t>(kernel.size()) - 1; }
};

/** Where output pixel i lies on the input axis, mirrored at its ends. */
double source_position(std::int64_t i, double factor, std::int64_t n) {
  const double last = static_cast<double>(n - 1);
  const double c = (static_cast<double>(i) + 0.5) * factor - 0.5;
  if (c < 0) return std::min(-c, last);
  return c > last ? std::max(0.0, 2 * last - c) : c;
}

Axis make_axis(std::int64_t n, std::int64_t N) {
  const double factor = static_cast<double>(n) / static_cast<double>(N);
  Axis axis{n, gaussian(std::max(0.0, (factor - 1) / 2)), {}, {}};
  for (std::int64_t i = 0; i < N; ++i) {
    const double position = source_position(i, factor, n);
    const auto low = static_cast<std::int64_t>(position);
    const auto high = std::min(low + 1, n - 1);
    axis.samples.push_back({low, high, position - static_cast<double>(low)});
    axis.needed.push_back(low);
    axis.needed.push_back(high);
  }
  auto& needed = axis.needed;
  std::sort(needed.begin(), needed.end());
  needed.erase(std::unique(needed.begin(), needed.end()), needed.end());
  const auto rank = [&](std::int64_t pixel) {
    return std::lower_bound(needed.begin(), needed.end(), pixel) - needed.begin();
  };
  for (auto& sample : axis.samples) sample = {rank(sample.low), rank(sample.high), sample.weight};
  return axis;
}

/**
 * float32(value / divisor) of one row. The quotient of two float32 rounds at once to what rounding it to float64 first gives: 53 bits
 * are more than twice 24, and integers of 16 bits are exact in both. Dividing vectorises, a table of quotients would not.
 */
template <typename T>
CELLCAM_INLINE void normalise(const T* in, std::int64_t stride, std::int64_t w, float divisor, float* out) {
  if (stride == 1) {
    for (std::int64_t x = 0; x < w; ++x) out[x] = static_cast<float>(in[x]) / divisor;
  } else {
    for (std::int64_t x = 0; x < w; ++x) out[x] = static_cast<float>(in[x * stride]) / divisor;
  }
}

CELLCAM_WIDEN void normalise_row(const Plane& plane, std::int64_t row, std::int64_t w, float divisor, float* out) {
  const std::int64_t offset = row * w * plane.stride;
  switch (plane.dtype) {
    case Dtype::u8:
      return normalise(static_cast<const std::uint8_t*>(plane.data) + offset, plane.stride, w, divisor, out);
    case Dtype::u16:
      return normalise(static_cast<const std::uint16_t*>(plane.data) + offset, plane.stride, w, divisor, out);
    case Dtype::f32:
      return normalise(static_cast<const float*>(plane.data) + offset, plane.stride, w, divisor, out);
  }
}

/** Two taps of a symmetric kernel: the rows at one distance above and below, and their weight. */
struct Taps {
  const float *above, *below;
  double weight;
};

/** sum[x] = start(x) and `count` pairs of taps, one after the other, in one sweep: `count` is a constant, so that this vectorises. */
template <std::int64_t count, typename Start>
CELLCAM_INLINE void add_taps(Start start, const Taps* taps, std::int64_t w, double* sum) {
  std::array<Taps, count> t;
  std::copy_n(taps, count, t.begin());
  for (std::int64_t x = 0; x < w; ++x) {
    double value = start(x);
    for (std::int64_t j = 0; j < count; ++j) {
      value += (static_cast<double>(t[j].above[x]) + static_cast<double>(t[j].below[x])) * t[j].weight;
    }
    sum[x] = value;
  }
}

template <typename Start>
CELLCAM_INLINE void add_taps(std::int64_t count, Start start, const Taps* taps, std::int64_t w, double* sum) {
  switch (count) {
    case 0: return add_taps<0>(start, taps, w, sum);
    case 1: return add_taps<1>(start, taps, w, sum);
    case 2: return add_taps<2>(start, taps, w, sum);
    case 3: return add_taps<3>(start, taps, w, sum);
    default: return add_taps<4>(start, taps, w, sum);
  }
}

/** centre · weight and all pairs of taps. */
CELLCAM_WIDEN void blur_row(const float* centre, double weight, const Taps* taps, std::int64_t count, std::int64_t w,
                            double* sum) {
  constexpr std::int64_t most = 4;
  add_taps(std::min(count, most), [=](std::int64_t x) { return static_cast<double>(centre[x]) * weight; }, taps, w, sum);
  for (std::int64_t j = most; j < count; j += most) {
    add_taps(std::min(count - j, most), [=](std::int64_t x) { return sum[x]; }, taps + j, w, sum);
  }
}

/** The rows of a plane around the one being blurred: a ring that holds each row from its first use to its last. */
class RowWindow {
 public:
  RowWindow(const Plane& plane, std::int64_t h, std::int64_t w, std::int64_t radius, double divisor)
      : plane_(plane),
        h_(h),
        w_(w),
        slots_(std::min(h, 2 * radius + 1)),
        divisor_(static_cast<float>(divisor)),
        rows_(slots_ * w) {}

  /** Makes the `slots` rows that end with `last` available. */
  void advance(std::int64_t last) {
    for (next_ = std::max(next_, last - slots_ + 1); next_ <= last; ++next_) {
      normalise_row(plane_, next_, w_, divisor_, &rows_[next_ % slots_ * w_]);
    }
  }
  const float* row(std::int64_t y) const { return &rows_[mirror(y, h_) % slots_ * w_]; }

 private:
  const Plane& plane_;
  std::int64_t h_, w_, slots_;
  float divisor_;  // 1, 255 or 65535
  std::int64_t next_ = 0;
  std::vector<float> rows_;
};

/** Row y blurred along the columns, not yet rounded. `taps` is room for them. */
void blur_vertically(RowWindow& window, const Axis& rows, std::int64_t y, std::int64_t w, std::vector<Taps>& taps,
                     double* out) {
  window.advance(std::min(rows.n - 1, y + rows.radius()));
  taps.clear();
  // Outermost taps first: small terms are added before large ones, and the sums are SciPy's to the last bit.
  for (std::int64_t j = rows.radius(); j >= 1; --j) taps.push_back({window.row(y - j), window.row(y + j), rows.kernel[j]});
  blur_row(window.row(y), rows.kernel[0], taps.data(), rows.radius(), w, out);
}

/** Writes a blurred row, rounded to float32, as one lane of a block with `radius` mirrored pixels on either side. */
void put_lane(const double* row, std::int64_t w, std::int64_t radius, double* lane) {
  double* pixels = lane + radius * kLanes;
  for (std::int64_t x = 0; x < w; ++x) pixels[x * kLanes] = static_cast<float>(row[x]);
  for (std::int64_t x = 1; x <= radius; ++x) {
    pixels[-x * kLanes] = pixels[mirror(-x, w) * kLanes];
    pixels[(w - 1 + x) * kLanes] = pixels[mirror(w - 1 + x, w) * kLanes];
  }
}

/** Blurs a block along its rows at the needed columns: out[column][lane]. */
CELLCAM_WIDEN void blur_block(const double* block, const std::int64_t* needed, std::int64_t count, const double* kernel,
                              std::int64_t radius, float* out) {
  for (std::int64_t i = 0; i < count; ++i) {
    const double* centre = block + (needed[i] + radius) * kLanes;
    double sum[kLanes];
    for (std::int64_t l = 0; l < kLanes; ++l) sum[l] = centre[l] * kernel[0];
    for (std::int64_t j = radius; j >= 1; --j) {
      const double *a = centre - j * kLanes, *b = centre + j * kLanes;
      for (std::int64_t l = 0; l < kLanes; ++l) sum[l] += (a[l] + b[l]) * kernel[j];
    }
    for (std::int64_t l = 0; l < kLanes; ++l) out[i * kLanes + l] = static_cast<float>(sum[l]);
  }
}

/** The blurred plane at the needed rows and columns only, (rows.needed, columns.needed). */
std::vector<float> blur_plane(const Plane& plane, const Axis& rows, const Axis& columns, double divisor) {
  const std::int64_t w = columns.n, radius = columns.radius();
  const auto height = static_cast<std::int64_t>(rows.needed.size());
  const auto width = static_cast<std::int64_t>(columns.needed.size());
  RowWindow window(plane, rows.n, w, rows.radius(), divisor);
  std::vector<Taps> taps;
  std::vector<double> sum(w), block((w + 2 * radius) * kLanes);
  std::vector<float> lanes(width * kLanes), out(height * width);
  for (std::int64_t top = 0; top < height; top += kLanes) {
    const std::int64_t count = std::min(kLanes, height - top);
    for (std::int64_t l = 0; l < count; ++l) {
      blur_vertically(window, rows, rows.needed[top + l], w, taps, sum.data());
      put_lane(sum.data(), w, radius, &block[l]);
    }
    blur_block(block.data(), columns.needed.data(), width, columns.kernel.data(), radius, lanes.data());
    for (std::int64_t l = 0; l < count; ++l) {
      for (std::int64_t x = 0; x < width; ++x) out[(top + l) * width + x] = lanes[x * kLanes + l];
    }
  }
  return out;
}

template <typename T>
std::pair<double, double> extremes(const void* data, std::int64_t count, std::int64_t stride) {
  const T* values = static_cast<const T*>(data);
  T low = values[0], high = values[0];
  if (stride == 1) {  // vectorises
    for (std::int64_t i = 1; i < count; ++i) {
      low = std::min(low, values[i]);
      high = std::max(high, values[i]);
    }
  } else {
    for (std::int64_t i = 1; i < count; ++i) {
      low = std::min(low, values[i * stride]);
      high = std::max(high, values[i * stride]);
    }
  }
  return {low, high};
}

std::pair<double, double> extremes(const Plane& plane, std::int64_t count) {
  switch (plane.dtype) {
    case Dtype::u8:
      return extremes<std::uint8_t>(plane.data, count, plane.stride);
    case Dtype::u16:
      return extremes<std::uint16_t>(plane.data, count, plane.stride);
    default:
      return extremes<float>(plane.data, count, plane.stride);
  }
}

/** Smallest and largest value of all planes as float32(value / divisor). */
std::pair<float, float> clip_range(const std::vector<Plane>& planes, std::int64_t count, double divisor) {
  auto [low, high] = extremes(planes[0], count);
  for (const Plane& plane : planes) {
    const auto [plane_low, plane_high] = extremes(plane, count);
    low = std::min(low, plane_low);
    high = std::max(high, plane_high);
  }
  return {static_cast<float>(low / divisor), static_cast<float>(high / divisor)};
}

/** Mixes the four blurred pixels around each output pixel and hands the clipped value to `put(index, value)`. */
template <typename Put>
void sample_plane(const std::vector<float>& blurred, const Axis& rows, const Axis& columns,
                  std::pair<float, float> range, Put put) {
  const auto width = static_cast<std::int64_t>(columns.needed.size());
  std::int64_t index = 0;
  for (const auto& y : rows.samples) {
    const float *low = &blurred[y.low * width], *high = &blurred[y.high * width];
    const double a = 1 - y.weight;
    for (const auto& x : columns.samples) {
      const double b = 1 - x.weight;
      const double value = low[x.low] * a * b + low[x.high] * a * x.weight + high[x.low] * y.weight * b +
                           high[x.high] * y.weight * x.weight;
      put(index++, std::min(std::max(static_cast<float>(value), range.first), range.second));
    }
  }
}

template <typename T, typename Convert>
void resize(const std::vector<Plane>& planes, std::int64_t h, std::int64_t w, double divisor, T* out, std::int64_t H,
            std::int64_t W, Convert convert) {
  if (planes.empty() || h < 1 || w < 1 || H < 1 || W < 1) {
    throw std::invalid_argument("Expected at least one plane and sizes of at least 1 × 1 to resize");
  }
  const Axis rows = make_axis(h, H), columns = make_axis(w, W);
  const auto range = clip_range(planes, h * w, divisor);
  const auto channels = static_cast<std::int64_t>(planes.size());
  for (std::int64_t c = 0; c < channels; ++c) {
    const auto blurred = blur_plane(planes[c], rows, columns, divisor);
    sample_plane(blurred, rows, columns, range,
                 [&](std::int64_t i, float value) { out[i * channels + c] = convert(value); });
  }
}

}  // namespace

void resize_to_float(const std::vector<Plane>& planes, std::int64_t h, std::int64_t w, double divisor, float* out_hwc,
                     std::int64_t H, std::int64_t W) {
  resize(planes, h, w, divisor, out_hwc, H, W, [](float value) { return value; });
}

void resize_to_uint8(const std::vector<Plane>& planes, std::int64_t h, std::int64_t w, double divisor,
                     std::uint8_t* out_hwc, std::int64_t H, std::int64_t W) {
  resize(planes, h, w, divisor, out_hwc, H, W, [](float value) {
    const float scaled = 255.0f * value;
    return static_cast<std::uint8_t>(scaled > 0 ? std::min(scaled, 255.0f) : 0.0f);
  });
}

double field_divisor(const std::vector<Plane>& planes, std::int64_t h, std::int64_t w) {
  const bool exceeds = std::any_of(planes.begin(), planes.end(), [&](const Plane& plane) {
    return plane.dtype != Dtype::u8 && extremes(plane, h * w).second > 255;
  });
  return exceeds ? 65535 : 255;
}

}  // namespace cellcam::image
