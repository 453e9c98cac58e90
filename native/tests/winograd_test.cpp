// Convolutions by Winograd's minimal filtering against LibTorch's in float64.
#include <ATen/Functions.h>

#include "check.h"
#include "conv_check.h"
#include "model/fused/pixels.h"
#include "model/fused/winograd.h"

namespace cellcam::tests {

namespace {

using model::Views;
using model::fused::kNhwc;

// Whole tiles; fewer pixels than a tile at two edges; more outputs, and fewer, an odd number of panels of either; groups of one panel, of two, and of
// different numbers in and out; weights that threads share with any cache, in one block of tiles and in several.
constexpr ConvCase kCases[] = {{4, 16, 16, 3, 1, 1, 12, 16},   {3, 32, 32, 3, 1, 1, 13, 19},  {2, 16, 48, 3, 1, 1, 9, 30},
                               {2, 48, 32, 3, 1, 1, 11, 17},   {2, 64, 64, 3, 1, 4, 14, 21},  {2, 128, 128, 3, 1, 4, 15, 18},
                               {2, 128, 64, 3, 1, 4, 17, 11},  {4, 192, 160, 3, 1, 1, 12, 11}, {5, 192, 192, 3, 1, 1, 30, 31}};
constexpr double kTolerance = 4e-6;  // up to 2e-6; of direct convolutions 1e-6

const Register minimal("convolutions by minimal filtering: outputs and gradients, on one thread and on several", [] {
  need_avx2();
  with_threads([] {
    for (const ConvCase& c : kCases) {
      check_conv(c, kTolerance, [&](const Views& x, const at::Tensor& w) {
        check(model::fused::winograd_fits(x, w, 1, c.groups, false), text_of(c, "whether it fits"));
        return model::fused::winograd_conv(x, w, c.groups);
      });
      check_conv_act(c, kTolerance, [&](const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias, float slope, const at::Tensor& residual) {
        return model::fused::winograd_conv_act(x, model::fused::winograd_weight(w), bias, c.groups, slope, residual);
      });
    }
  });
});

const Register unfit("convolutions that minimal filtering does not take", [] {
  need_avx2();
  const auto image = [](std::int64_t channels, std::int64_t size) { return at::zeros({4, channels, size, size}).contiguous(kNhwc); };
  const auto weight = [](std::int64_t out, std::int64_t in, std::int64_t kernel = 3) { return at::zeros({out, in, kernel, kernel}).contiguous(kNhwc); };
  const auto fits = [](const Views& x, const at::Tensor& w, std::int64_t stride = 1, std::int64_t groups = 1, bool kept = false) {
    return model::fused::winograd_fits(x, w, stride, groups, kept);
  };
  const at::Tensor x = image(32, 16), w = weight(32, 32);
  check(fits(x, w), "the usual case");
  check(!fits(x, w, 2), "every other pixel");
  check(!fits(x, weight(32, 32, 1)), "1x1");
  check(!fits(image(24, 16), weight(32, 24)) && !fits(x, weight(24, 32)), "channels that leave part of a panel");
  check(!fits(x, weight(32, 8), 1, 4), "groups smaller than a panel");
  check(!fits(x.contiguous(), w) && !fits(x, weight(32, 32).contiguous()), "NCHW");
  check(!fits(x.to(at::kDouble), w.to(at::kDouble)), "float64");
  check(!fits(image(32, 7), w) && fits(image(32, 7), w, 1, 1, /*kept=*/true), "few pixels pay where the weight stays transformed");
  check(!fits(at::zeros({400, 32, 1, 1}).contiguous(kNhwc), w), "images much smaller than a tile");
});

}  // namespace

}  // namespace cellcam::tests
