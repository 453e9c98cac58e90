// The blurs of one image on the CPU: whole numbers, a row at a time.
#include <algorithm>
#include <cstring>

#include "training/augment/host_image.h"

namespace cellcam::training::augment {

namespace {

std::int64_t mirrored(std::int64_t i, std::int64_t n) {
  if (n == 1) return 0;
  const std::int64_t period = 2 * (n - 1), at = ((i % period) + period) % period;
  return std::min(at, period - at);
}

// The image with `margin` pixels more on each side: mirrored without repeating the edge, or the edge repeated.
void pad(const Image& in, std::int64_t margin, bool repeat_edge, Image& out) {
  out.reshape(in.height + 2 * margin, in.width + 2 * margin, in.channels);
  const std::int64_t c = in.channels;
  const auto inside = [&](std::int64_t i, std::int64_t n) {
    return repeat_edge ? std::clamp<std::int64_t>(i, 0, n - 1) : mirrored(i, n);
  };
  for (std::int64_t y = 0; y < out.height; ++y) {
    const std::uint8_t* from = in.row(inside(y - margin, in.height));
    std::uint8_t* to = out.row(y);
    std::memcpy(to + margin * c, from, static_cast<std::size_t>(in.width * c));
    for (std::int64_t i = 0; i < margin; ++i) {
      std::memcpy(to + i * c, from + inside(i - margin, in.width) * c, static_cast<std::size_t>(c));
      std::memcpy(to + (margin + in.width + i) * c, from + inside(in.width + i, in.width) * c, static_cast<std::size_t>(c));
    }
  }
}

// Adds `weight` times `count` values.
CELLCAM_WIDEN void accumulate(std::uint16_t* sum, const std::uint8_t* v, std::uint16_t weight, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] = static_cast<std::uint16_t>(sum[i] + weight * v[i]);
}

CELLCAM_WIDEN void divide_half_even(const std::uint16_t* sum, float divisor, std::int64_t count, std::uint8_t* out) {
  const float factor = 1 / divisor;
  for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<std::uint8_t>((static_cast<float>(sum[i]) * factor + kRound) - kRound);
}

CELLCAM_WIDEN void shift_half_up(const std::uint16_t* sum, int bits, std::int64_t count, std::uint8_t* out) {
  const std::uint32_t half = 1u << (bits - 1);
  for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<std::uint8_t>((sum[i] + half) >> bits);
}

void gaussian_blur(const Operation& o, const Image& in, Image& padded, Image& out) {
  const std::int64_t side = o.whole(0), margin = side / 2, c = in.channels, count = in.width * c;
  static constexpr std::uint16_t kThree[] = {1, 2, 1}, kFive[] = {1, 4, 6, 4, 1};
  const std::uint16_t* weights = side == 3 ? kThree : kFive;
  pad(in, margin, false, padded);
  out.reshape(in.height, in.width, c);
  std::vector<std::uint16_t> sum(static_cast<std::size_t>(count));
  for (std::int64_t y = 0; y < in.height; ++y) {
    std::fill(sum.begin(), sum.end(), std::uint16_t{0});
    for (std::int64_t dy = 0; dy < side; ++dy) {
      for (std::int64_t dx = 0; dx < side; ++dx) {
        accumulate(sum.data(), padded.row(y + dy) + dx * c, static_cast<std::uint16_t>(weights[dy] * weights[dx]), count);
      }
    }
    shift_half_up(sum.data(), side == 3 ? 4 : 8, count, out.row(y));
  }
}

void motion_blur(const Operation& o, const Image& in, Image& padded, Image& out) {
  const std::int64_t side = o.whole(0), c = in.channels, count = in.width * c;
  const std::uint32_t line = motion_line(side, o.whole(1), o.whole(2), o.whole(3), o.whole(4));
  float cells = 0;
  for (std::uint32_t bits = line; bits != 0; bits &= bits - 1) ++cells;
  pad(in, side / 2, false, padded);
  out.reshape(in.height, in.width, c);
  std::vector<std::uint16_t> sum(static_cast<std::size_t>(count));
  for (std::int64_t y = 0; y < in.height; ++y) {
    std::fill(sum.begin(), sum.end(), std::uint16_t{0});
    for (std::int64_t cell = 0; cell < side * side; ++cell) {
      if ((line >> cell & 1u) != 0) accumulate(sum.data(), padded.row(y + cell / side) + cell % side * c, 1, count);
    }
    divide_half_even(sum.data(), cells, count, out.row(y));
  }
}

constexpr std::int64_t kLane = 64;  // values that one pass of the median treats side by side

// Orders two lanes: the smaller values to a, the larger to b.
inline void order(std::uint8_t* __restrict a, std::uint8_t* __restrict b) {
  for (std::int64_t i = 0; i < kLane; ++i) {
    const std::uint8_t x = a[i], y = b[i];
    a[i] = x < y ? x : y;
    b[i] = x < y ? y : x;
  }
}

// The median by forgetting: of half of the values and two more, neither the smallest nor the largest can be the median; drop
// both, take one more, and so on to the last three. `windows` are side * side pointers to kLane values each.
CELLCAM_WIDEN void median_of(const std::uint8_t* const* windows, std::int64_t count, std::uint8_t* out, std::int64_t values) {
  alignas(64) std::uint8_t kept[27][kLane];
  std::int64_t size = count / 2 + 2, next = size;
  for (std::int64_t i = 0; i < size; ++i) std::memcpy(kept[i], windows[i], kLane);
  for (;;) {
    const std::int64_t half = size / 2;
    for (std::int64_t i = 0; i < half; ++i) order(kept[i], kept[size - 1 - i]);  // smaller ones below, larger ones above
    for (std::int64_t i = 1; i < (size + 1) / 2; ++i) order(kept[0], kept[i]);
    for (std::int64_t i = size / 2; i < size - 1; ++i) order(kept[i], kept[size - 1]);
    if (size == 3) break;
    std::memcpy(kept[0], windows[next++], kLane);  // in the place of the smallest
    size -= 1;                                     // and without the largest
  }
  std::memcpy(out, kept[1], static_cast<std::size_t>(values));
}

void median_blur(const Operation& o, const Image& in, Image& padded, Image& out) {
  const std::int64_t side = o.whole(0), c = in.channels, count = in.width * c;
  pad(in, side / 2, true, padded);
  padded.pixels.resize(padded.pixels.size() + kLane);  // the last lane of the last row may read on
  out.reshape(in.height, in.width, c);
  const std::uint8_t* windows[49];
  for (std::int64_t y = 0; y < in.height; ++y) {
    for (std::int64_t i = 0; i < count; i += kLane) {
      for (std::int64_t n = 0; n < side * side; ++n) windows[n] = padded.row(y + n / side) + n % side * c + i;
      median_of(windows, side * side, out.row(y) + i, std::min(kLane, count - i));
    }
  }
}

}  // namespace

void blur_on_host(const Operation& o, const Image& in, Image& padded, Image& out) {
  if (o.op == Op::GaussianBlur) gaussian_blur(o, in, padded, out);
  if (o.op == Op::MotionBlur) motion_blur(o, in, padded, out);
  if (o.op == Op::MedianBlur) median_blur(o, in, padded, out);
}

}  // namespace cellcam::training::augment
