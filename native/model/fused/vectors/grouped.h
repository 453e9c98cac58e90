// Loops of grouped_loops.h, for the instructions of the region that includes this (vector.h).

constexpr int kWidest = 12;                       // pixels whose sums are in registers
constexpr int kSums = kLanes == 16 ? 24 : 12;     // of the weight's gradient that are
constexpr int kAhead = 16;                        // pixels that are asked for before they are read

// Groups that lie in one vector.
template <int kGroup>
constexpr int kTogether = kGroup < kLanes ? kLanes / kGroup : 1;

// The first channels of these groups, then their second ones, and so on: so channel i of all of them is read into all lanes of their groups at once.
template <int groups>
struct Order {
  std::int32_t channel[kLanes], lane[kLanes];
  constexpr Order() : channel(), lane() {
    for (int i = 0; i < kLanes; ++i) {
      channel[i] = i % groups * (kLanes / groups) + i / groups;
      lane[channel[i]] = i;
    }
  }
};
template <int groups>
constexpr Order<groups> kOrder;

template <int groups>
inline Vector to_lanes(Vector channels) {
  return groups == 1 ? channels : channels.at(kOrder<groups>.channel);
}

template <int groups>
inline Vector to_channels(Vector lanes) {
  return groups == 1 ? lanes : lanes.at(kOrder<groups>.lane);
}

template <int kGroup, bool activated>
inline void gather_pixels(const float* x, std::int64_t step, std::int64_t pixels, float* to, std::int64_t block, const Activation* before) {
  constexpr std::int64_t blocks = kChunk / kLanes;
  Vector scale[blocks], shift[blocks], slope = Vector::zero();
  if constexpr (activated) {
    slope = Vector::all(before->slope);
    for (std::int64_t b = 0; b < blocks; ++b) {
      scale[b] = Vector::load(before->scale + b * kLanes);
      shift[b] = Vector::load(before->shift + b * kLanes);
    }
  }
  for (; pixels > 0; --pixels, x += step, to += kLanes) {
#pragma GCC unroll 2
    for (std::int64_t c = 0; c < kChunk; c += 16) ask_for<1>(x + kAhead * step + c);
#pragma GCC unroll 4
    for (std::int64_t b = 0; b < blocks; ++b) {
      Vector v = Vector::load(x + b * kLanes);
      if constexpr (activated) v = act(add(v, scale[b], shift[b]), slope);
      to_lanes<kTogether<kGroup>>(v).store(to + b * block);
    }
  }
}

template <int kGroup>
void gather(const float* x, std::int64_t step, std::int64_t pixels, float* to, std::int64_t block, const Activation* before) {
  if (before == nullptr) return gather_pixels<kGroup, false>(x, step, pixels, to, block, before);
  gather_pixels<kGroup, true>(x, step, pixels, to, block, before);
}

// Pixels of x are kStep vectors apart.
template <int kGroup, int kStep, int kPixels>
inline void convolve_pixels(const float* x, const Taps& taps, const float* weight, Vector bias, Vector slope, float* y, std::int64_t y_pixel) {
  constexpr int groups = kTogether<kGroup>;
  Vector sum[kPixels];
#pragma GCC unroll 12
  for (int p = 0; p < kPixels; ++p) sum[p] = bias;
  for (std::int64_t block = 0; block < taps.blocks; ++block, x += taps.block) {
    for (std::int64_t t = 0; t < taps.count; ++t) {
      const float* pixels = x + taps.offset[t];
#pragma GCC unroll 4
      for (int i = 0; i < kGroup; ++i, weight += kLanes) {
        const Vector w = Vector::load(weight);
#pragma GCC unroll 12
        for (int p = 0; p < kPixels; ++p) sum[p] = add(Vector::repeat<groups>(pixels + p * kStep * kLanes + i * groups), w, sum[p]);
      }
    }
  }
#pragma GCC unroll 12
  for (int p = 0; p < kPixels; ++p) to_channels<groups>(act(sum[p], slope)).store(y + p * y_pixel);
}

// `pixels` of them, 1 to kPixels.
template <int kGroup, int kStep, int kPixels>
inline void convolve_some(std::int64_t pixels, const float* x, const Taps& taps, const float* weight, Vector bias, Vector slope, float* y,
                          std::int64_t y_pixel) {
  if constexpr (kPixels > 1) {
    if (pixels < kPixels) return convolve_some<kGroup, kStep, kPixels - 1>(pixels, x, taps, weight, bias, slope, y, y_pixel);
  }
  convolve_pixels<kGroup, kStep, kPixels>(x, taps, weight, bias, slope, y, y_pixel);
}

template <int kGroup, int kStep>
void convolve(const float* x, const Taps& taps, const float* weight, const float* bias, float slope, std::int64_t rows, std::int64_t width, float* y,
              std::int64_t y_row, std::int64_t y_pixel) {
  const Vector b = bias == nullptr ? Vector::zero() : to_lanes<kTogether<kGroup>>(Vector::load(bias)), s = Vector::all(slope);
  const std::int64_t pieces = (width + kWidest - 1) / kWidest, piece = (width + pieces - 1) / pieces;
  for (std::int64_t r = 0; r < rows; ++r, x += kStep * taps.row, y += y_row) {
    for (std::int64_t first = 0; first < width; first += piece) {
      const std::int64_t pixels = first + piece <= width ? piece : width - first;
      convolve_some<kGroup, kStep, kWidest>(pixels, x + first * kStep * kLanes, taps, weight, b, s, y + first * y_pixel, y_pixel);
    }
  }
}

template <int kGroup, int kStep>
void gradient(const float* x, const Taps& taps, const float* dy, std::int64_t rows, std::int64_t width, float* dw) {
  constexpr int groups = kTogether<kGroup>, kTaps = 3 * kGroup <= kSums ? 3 : 1;  // at a time
  for (std::int64_t block = 0; block < taps.blocks; ++block, x += taps.block) {
    for (std::int64_t t = 0; t < taps.count; t += kTaps) {
      Vector sum[kTaps][kGroup];
#pragma GCC unroll 3
      for (int i = 0; i < kTaps; ++i) {
#pragma GCC unroll 16
        for (int c = 0; c < kGroup; ++c) sum[i][c] = Vector::zero();
      }
      const float* g = dy;
      for (std::int64_t r = 0; r < rows; ++r) {
        const float* pixel[kTaps];
#pragma GCC unroll 3
        for (int i = 0; i < kTaps; ++i) pixel[i] = x + r * kStep * taps.row + taps.offset[t + i];
        for (std::int64_t p = 0; p < width; ++p, g += kLanes) {
          const Vector factor = Vector::load(g);
#pragma GCC unroll 3
          for (int i = 0; i < kTaps; ++i) {
#pragma GCC unroll 16
            for (int c = 0; c < kGroup; ++c) sum[i][c] = add(Vector::repeat<groups>(pixel[i] + p * kStep * kLanes + c * groups), factor, sum[i][c]);
          }
        }
      }
#pragma GCC unroll 3
      for (int i = 0; i < kTaps; ++i) {
#pragma GCC unroll 16
        for (int c = 0; c < kGroup; ++c, dw += kLanes) (Vector::load(dw) + sum[i][c]).store(dw);
      }
    }
  }
}

template <int kGroup, int kStep>
constexpr GroupedLoops kLoopsOf{kLanes, gather<kGroup>, convolve<kGroup, kStep>, gradient<kGroup, kStep>};

// For groups of 4, 8, 16 and more.
const GroupedLoops& loops_for(std::int64_t group, std::int64_t stride) {
  if (group == 4) return stride == 1 ? kLoopsOf<4, 1> : kLoopsOf<4, 2>;
  if (group == 8) return stride == 1 ? kLoopsOf<8, 1> : kLoopsOf<8, 2>;
  return stride == 1 ? kLoopsOf<kLanes, 1> : kLoopsOf<kLanes, 2>;
}
