#include "image/unfilter.h"

#include <algorithm>
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

/** One row on its way through the Paeth filter, left to right: `left` and `corner` are the sample's two neighbours. */
template <std::int64_t step>
struct PaethRow {
  Byte* at;
  int left[step] = {}, corner[step] = {};

  /** Sample i, whose neighbour above has just these bytes. */
  void next(std::int64_t i, const int (&over)[step]) {
    for (std::int64_t k = 0; k < step; ++k) {
      left[k] = (at[i + k] + paeth_predictor(left[k], over[k], corner[k])) & 255;
      corner[k] = over[k];
      at[i + k] = static_cast<Byte>(left[k]);
    }
  }
};

// `rows` rows under one another, each one sample behind the row above it, whose latest sample is its neighbour above: alone, a row
// would wait for every sample's left neighbour, but the rows do not wait for one another. They stay where they are until all are done,
// since a row moved to the front may overwrite what the row above has not read yet.
template <std::int64_t step, std::int64_t rows>
void paeth(Byte* in, const Byte* above, Byte* out, std::int64_t n) {
  PaethRow<step> row[rows];
  for (std::int64_t r = 0; r < rows; ++r) row[r].at = in + r * (n + 1);
  const std::int64_t samples = n / step;
  const auto advance = [&](std::int64_t t, std::int64_t r) {  // after the row below, which needs this row's sample before
    int over[step];
    for (std::int64_t k = 0; k < step; ++k) over[k] = r == 0 ? above[t * step + k] : row[std::max<std::int64_t>(r, 1) - 1].left[k];
    row[r].next((t - r) * step, over);
  };
  const auto edge = [&](std::int64_t t) {  // where some rows have not begun or are done
    for (std::int64_t r = rows - 1; r >= 0; --r) {
      if (t - r >= 0 && t - r < samples) advance(t, r);
    }
  };
  std::int64_t t = 0;
  for (; t < rows - 1; ++t) edge(t);
  for (; t < samples; ++t) {
    for (std::int64_t r = rows - 1; r >= 0; --r) advance(t, r);
  }
  for (; t < samples + rows - 1; ++t) edge(t);
  for (std::int64_t r = 0; r < rows; ++r) std::memmove(out + r * n, row[r].at, static_cast<std::size_t>(n));
}

// The most Paeth rows at once; the registers hold no more.
constexpr std::int64_t kPaethRows = 4;

template <std::int64_t step>
void paeth(std::int64_t rows, Byte* in, const Byte* above, Byte* out, std::int64_t n) {
  switch (rows) {
    case 1: return paeth<step, 1>(in, above, out, n);
    case 2: return paeth<step, 2>(in, above, out, n);
    case 3: return paeth<step, 3>(in, above, out, n);
    default: return paeth<step, kPaethRows>(in, above, out, n);
  }
}

bool unfilter_row(int filter, const Byte* in, const Byte* above, Byte* out, std::int64_t n, std::int64_t step) {
  switch (filter) {
    case 0: std::memmove(out, in, static_cast<std::size_t>(n)); return true;
    case 1: sub(in, out, n, step); return true;
    case 2: up(in, above, out, n); return true;
    case 3: step == 1 ? average<1>(in, above, out, n) : average<2>(in, above, out, n); return true;
    default: return false;
  }
}

// How many rows from `row` on have the Paeth filter, kPaethRows at most.
std::int64_t paeth_run(const Byte* row, std::int64_t left, std::int64_t row_bytes) {
  std::int64_t rows = 0;
  while (rows < std::min(left, kPaethRows) && row[rows * (row_bytes + 1)] == 4) ++rows;
  return rows;
}

}  // namespace

bool unfilter(Byte* data, std::int64_t height, std::int64_t row_bytes, std::int64_t sample_bytes) {
  const std::vector<Byte> nothing(static_cast<std::size_t>(row_bytes));  // above the first row
  const Byte* above = nothing.data();
  for (std::int64_t row = 0, rows = 1; row < height; row += rows) {
    Byte* in = data + row * (row_bytes + 1);
    Byte* out = data + row * row_bytes;
    rows = paeth_run(in, height - row, row_bytes);
    if (rows > 0) {
      sample_bytes == 1 ? paeth<1>(rows, in + 1, above, out, row_bytes) : paeth<2>(rows, in + 1, above, out, row_bytes);
    } else {
      rows = 1;
      if (!unfilter_row(in[0], in + 1, above, out, row_bytes, sample_bytes)) return false;
    }
    above = out + (rows - 1) * row_bytes;
  }
  if (sample_bytes == 2) {
    for (std::int64_t i = 0; i + 1 < height * row_bytes; i += 2) std::swap(data[i], data[i + 1]);
  }
  return true;
}

}  // namespace cellcam::image
