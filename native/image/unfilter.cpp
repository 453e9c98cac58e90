#include "image/unfilter.h"

#include <cstring>
#include <utility>
#include <vector>

namespace cellcam::image {

namespace {

using Byte = std::uint8_t;

// Rows move to the front as their filter bytes go: `out` lies before `in`, so every byte is read before it is overwritten.

// out[i] = in[0] + … + in[i], eight at a time: even and odd bytes are summed in 16-bit lanes, where nothing carries over.
void sub_bytes(const Byte* in, Byte* out, std::int64_t n) {
  constexpr std::uint64_t lanes = 0x0001000100010001, low = 0x00ff00ff00ff00ff;
  std::uint64_t last = 0;
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    std::uint64_t x;
    std::memcpy(&x, in + i, 8);
    const std::uint64_t even = (x & low) * lanes, odd = ((x >> 8) & low) * lanes, before = last * lanes;
    const std::uint64_t at_even = (even + (odd << 16) + before) & low, at_odd = (even + odd + before) & low;
    const std::uint64_t sums = at_even | at_odd << 8;
    std::memcpy(out + i, &sums, 8);
    last = sums >> 56;
  }
  for (; i < n; ++i) out[i] = static_cast<Byte>(last += in[i]);
}

void sub(const Byte* in, Byte* out, std::int64_t n, std::int64_t step) {
  if (step == 1) return sub_bytes(in, out, n);
  Byte a = 0, b = 0;  // of a sample's two bytes
  for (std::int64_t i = 0; i + 1 < n; i += 2) {
    out[i] = a = static_cast<Byte>(a + in[i]);
    out[i + 1] = b = static_cast<Byte>(b + in[i + 1]);
  }
}

void up(const Byte* in, const Byte* above, Byte* out, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<Byte>(in[i] + above[i]);
}

template <std::int64_t step>
void average(const Byte* in, const Byte* above, Byte* out, std::int64_t n) {
  Byte left[2] = {};  // of each byte of a sample
  for (std::int64_t i = 0; i < n; i += step) {
    for (std::int64_t k = 0; k < step; ++k) out[i + k] = left[k] = static_cast<Byte>(in[i + k] + (left[k] + above[i + k]) / 2);
  }
}

// All bits if negative, else none: choices by these masks, since branches on pixels are guessed wrong every other time.
inline int sign(int value) { return value >> 31; }
inline int negative_part(int value) { return value & sign(value); }

// Whichever of left, above and corner is nearest to p = left + above - corner; the first of equals. The corner wins only where p lies
// within the middle third of what left and above span, mirrored: 3 corner - left - above tells that with a chain of few steps from
// `left`, which the next pixel waits for.
inline int paeth_predictor(int left, int above, int corner) {
  const int mirrored = 3 * corner - above - left;
  const int down = negative_part(above - left);
  const int low = left + down, high = above - down;
  const int unless_low = low + ((corner - low) & sign(mirrored - high));
  return high + ((unless_low - high) & sign(low - mirrored));
}

template <std::int64_t step>
void paeth(const Byte* in, const Byte* above, Byte* out, std::int64_t n) {
  int left[step] = {}, corner[step] = {};
  for (std::int64_t i = 0; i + step <= n; i += step) {
    for (std::int64_t k = 0; k < step; ++k) {
      const int over = above[i + k];
      left[k] = (in[i + k] + paeth_predictor(left[k], over, corner[k])) & 255;
      corner[k] = over;
      out[i + k] = static_cast<Byte>(left[k]);
    }
  }
}

bool unfilter_row(int filter, const Byte* in, const Byte* above, Byte* out, std::int64_t n, std::int64_t step) {
  switch (filter) {
    case 0: std::memmove(out, in, static_cast<std::size_t>(n)); return true;
    case 1: sub(in, out, n, step); return true;
    case 2: up(in, above, out, n); return true;
    case 3: step == 1 ? average<1>(in, above, out, n) : average<2>(in, above, out, n); return true;
    case 4: step == 1 ? paeth<1>(in, above, out, n) : paeth<2>(in, above, out, n); return true;
    default: return false;
  }
}

}  // namespace

bool unfilter(Byte* data, std::int64_t height, std::int64_t row_bytes, std::int64_t sample_bytes) {
  const std::vector<Byte> nothing(static_cast<std::size_t>(row_bytes));  // above the first row
  const Byte* above = nothing.data();
  for (std::int64_t row = 0; row < height; ++row) {
    const Byte* in = data + row * (row_bytes + 1);
    Byte* out = data + row * row_bytes;
    if (!unfilter_row(in[0], in + 1, above, out, row_bytes, sample_bytes)) return false;
    above = out;
  }
  if (sample_bytes == 2) {
    for (std::int64_t i = 0; i + 1 < height * row_bytes; i += 2) std::swap(data[i], data[i + 1]);
  }
  return true;
}

}  // namespace cellcam::image
