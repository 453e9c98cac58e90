#pragma once
#include <cstdint>

#include "model/fused/panel_loops.h"
#include "model/fused/rows.h"

namespace cellcam::model::fused {

// Loops of 3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3) (arXiv 1509.09308): 4 x 4 outputs of a channel from 6 x 6 inputs take
// 36 multiplications instead of 144. Its polynomials are evaluated at 0, 3/4, -3/4, 3/2, -3/2 and infinity: float32 holds the factors of
// pixels, and rounding errors are at most twice those of a direct convolution (with 1, -1, 2, -2 twice that).
//
// What the transforms write are 36 matrices by panels (panel_loops.h): (place, channels / kPanel, rows, kPanel), rows being tiles of pixels or,
// for weights, the other channels. Floats from one place to the next: `apart`.
constexpr std::int64_t kTile = 4, kPatch = 6, kPlaces = kPatch * kPatch;

// A rectangle of pixels of one panel within NHWC pixels; what lies outside rows [top, bottom) and columns [left, right) of the rectangle does
// not exist: zero where it is read.
struct Pixels {
  std::int64_t row, pixel;  // floats from row to row, from pixel to pixel
  std::int64_t top, bottom, left, right;
};

struct WinogradLoops {
  // 6 x 6 inputs of a tile, whose first is at x, transformed.
  void (*patch)(const float* x, const Pixels& at, float* out, std::int64_t apart);

  // 4 x 4 gradients of a tile's outputs, transformed as outputs are transformed back.
  void (*spread)(const float* dy, const Pixels& at, float* out, std::int64_t apart);

  // A tile's outputs: y = act(sum + bias + residual). `bias` and `residual`, which lies as y does, may be null.
  void (*outputs)(const float* sums, std::int64_t apart, const float* bias, const float* residual, float slope, float* y, const Pixels& at);

  // Weights of `count` input channels, a multiple of 8, from w (kPanel, 3, 3, in), which is at the first of them and at the panel's first output
  // channel: rows are input channels.
  void (*weights)(const float* w, std::int64_t in, std::int64_t count, float* out, std::int64_t apart);

  // The same of the convolution that leads from the output's gradient to the input's, for kPanel input channels, the first of which is
  // at w (count, 3, 3, in): rows are output channels, `count` of them.
  void (*weights_back)(const float* w, std::int64_t in, std::int64_t count, float* u, std::int64_t apart);

  // Gradients of kPanel channels of w, (out, 3, 3, in) likewise, from those of transformed ones, rows being output channels; added to what dw holds if
  // `adds`.
  void (*weight_gradient)(const float* du, std::int64_t apart, std::int64_t out, std::int64_t in, bool adds, float* dw);
};

// For this CPU; null where it has no such vectors.
const WinogradLoops* winograd_loops();

}  // namespace cellcam::model::fused
